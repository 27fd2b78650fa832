//! What can go wrong in the network, one variant per operation.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::model::Protocol;

/// A failed network operation. `Display` names the operation and its object; the cause is the `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is not a network name.
    #[error(
        "network name {0:?} is not valid: use letters, digits, '_', '.' and '-', starting with a letter or digit"
    )]
    Name(String),
    /// No such network.
    #[error("network {0} does not exist")]
    NotFound(String),
    /// The name is in use.
    #[error("network {0} exists already")]
    Exists(String),
    /// A predefined network (bridge, host, none) cannot be made or removed.
    #[error("network {0} is predefined")]
    Predefined(String),
    /// Containers are attached.
    #[error("network {network} has containers attached: {containers}")]
    InUse {
        /// The network.
        network: String,
        /// Their ids, shortened, separated by commas.
        containers: String,
    },
    /// Subnet that overlaps another network or a route of the host.
    #[error("subnet {subnet} overlaps {other}")]
    Overlap {
        /// What was asked for.
        subnet: ipnet::Ipv4Net,
        /// Who has it.
        other: String,
    },
    /// Every subnet of the pool is in use.
    #[error("no subnet is left in the pool {0}")]
    PoolExhausted(ipnet::Ipv4Net),
    /// Subnet or gateway that cannot work.
    #[error("subnet {subnet} is not usable: {reason}")]
    Subnet {
        /// What was asked for.
        subnet: String,
        /// Why not.
        reason: &'static str,
    },
    /// Something this network does not do.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// Every address is leased.
    #[error("network {network} has no free address left in {subnet}")]
    Exhausted {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: ipnet::Ipv4Net,
    },
    /// `--ip` of somebody else.
    #[error("address {ip} on network {network} is taken by {owner}")]
    AddressTaken {
        /// The network.
        network: String,
        /// The address.
        ip: Ipv4Addr,
        /// Who holds it: a container id, or the gateway.
        owner: String,
    },
    /// `--ip` outside of the subnet.
    #[error("address {ip} is not a host address of network {network} ({subnet})")]
    AddressOutside {
        /// The network.
        network: String,
        /// The address.
        ip: Ipv4Addr,
        /// Its subnet.
        subnet: ipnet::Ipv4Net,
    },
    /// Somebody listens on the host port, or another container publishes it.
    #[error("port {port}/{protocol} on {ip} is taken")]
    PortTaken {
        /// Host address.
        ip: IpAddr,
        /// Host port.
        port: u16,
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// The host port cannot be reserved.
    #[error("cannot reserve port {port}/{protocol} on {ip}")]
    Port {
        /// Host address.
        ip: IpAddr,
        /// Host port, 0 for one the kernel chooses.
        port: u16,
        /// TCP or UDP.
        protocol: Protocol,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A `-p` value that does not parse.
    #[error("port mapping {text:?} is not valid: {reason}")]
    PortSyntax {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A MAC address that does not parse, or is a group address.
    #[error("MAC address {0:?} is not valid")]
    Mac(String),
    /// A name or option that would be more than one word of a file.
    #[error(
        "{0:?} is not one word: it has a blank, a control character, '#' or ';', is empty or longer than 255 bytes"
    )]
    Word(String),
    /// A name that no neighbour could ask for.
    #[error(
        "{0:?} is not a name: use letters, digits, '_', '.' and '-', at most 63 between two dots and 200 in all"
    )]
    Alias(String),
    /// A container attached already, or twice to one network.
    #[error("container {container} is attached to network {network} already")]
    Attached {
        /// Container id.
        container: String,
        /// The network.
        network: String,
    },
    /// The container is not attached to that network.
    #[error("container {container} is not attached to network {network}")]
    NotAttached {
        /// Container id.
        container: String,
        /// The network.
        network: String,
    },
    /// A file of ours.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of ours with bytes that make no sense.
    #[error("cannot parse {}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Creating, entering or pinning a network namespace.
    #[error("cannot {operation} network namespace {}", path.display())]
    Netns {
        /// What was tried.
        operation: &'static str,
        /// The namespace.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sockets of a container's name server.
    #[error("cannot open a name server at 127.0.0.11")]
    NameServer(#[source] io::Error),
    /// A netlink request about links, addresses or routes.
    #[error("cannot {operation} {object}")]
    Link {
        /// What was tried.
        operation: &'static str,
        /// Link name or address.
        object: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An nftables transaction.
    #[error("cannot {operation} in nftables")]
    Nft {
        /// What was tried.
        operation: &'static str,
        /// Why; the kernel's errno of the first message it refused.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(super) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }
}

/// Result of a network operation.
pub type Result<T> = std::result::Result<T, Error>;
