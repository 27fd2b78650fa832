//! The container network: bridges, addresses, published ports and names, made by netlink and nftables messages from
//! inside the process. See docs/network.md.
//!
//! ```text
//! attach: netns ─► leases (under the network's flock) ─► record ─► bridge ─► veth ─► addresses ─► nft elements
//! detach: the same backwards, from the record alone
//! ```
//!
//! Everything here blocks, but for [`dns::Responder`], which never does.

mod attach;
pub mod dns;
mod error;
mod model;

pub use attach::{Attachment, attach, connect, detach, disconnect, inspect, rename};
pub use error::{Error, Result};
pub use model::{
    AttachRequest, DEFAULT_BRIDGE, DEFAULT_NETWORK, DnsOptions, Endpoint, EndpointStatus, HostTarget, Mac,
    Mode, NetnsSource, Network, NetworkOptions, Paths, PortMapping, Protocol, validate_name,
};
pub use store::Networks;
pub mod files;
pub mod port;
mod store;
