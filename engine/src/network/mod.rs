//! The container network: bridges, addresses, published ports and names, made by netlink and nftables messages from
//! inside the process. See docs/network.md.
//!
//! ```text
//! attach: leases and record (under the networks' flocks) ─► bridge ─┬─ container: netns ─► veth ─► addresses ─┬─► nft elements ─► names
//!                                                                   └─ microVM:   TAP                         ─┘
//! detach: nft elements ─► names ─► netns ─► (a moment later, together with others') links ─► leases ─► idle bridge ─► record
//! ```
//!
//! Everything here blocks, but for [`dns::Responder`], which never does.

mod admit;
mod attach;
mod connect;
mod detach;
pub mod dns;
mod error;
pub mod files;
mod firewall;
mod lease;
mod linger;
mod link;
mod lock;
mod model;
mod names;
mod netns;
mod nft;
pub mod port;
mod predefined;
mod record;
mod resolv_conf;
mod store;
mod word;

pub use admit::restore;
pub use attach::{Attachment, attach, inspect};
pub use connect::{connect, disconnect, rename};
pub use detach::{Released, detach, release};
pub use error::{Error, Result};
pub use linger::{LINGER, linger, settle_abandoned};
pub use model::{
    AttachRequest, DEFAULT_BRIDGE, DEFAULT_NETWORK, DnsOptions, Endpoint, EndpointStatus, FarEnd, HostTarget,
    Mac, Mode, Network, NetworkOptions, Paths, PortMapping, Protocol, primary, validate_name,
};
pub use names::validate as validate_alias;
pub use predefined::Listed;
pub use store::Networks;
pub use word::Word;
