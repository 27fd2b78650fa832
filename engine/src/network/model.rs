//! The words of the network: what a network is, what a container asks of it, what it gets.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::word::Word;

/// Name of the network containers join unless told otherwise.
pub const DEFAULT_NETWORK: &str = "bridge";
/// Link name of the default network's bridge.
pub const DEFAULT_BRIDGE: &str = "berth0";

/// Where the network keeps its files: `ROOT` and `STATE` of docs/architecture.md.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `--root`, durable.
    pub root: PathBuf,
    /// `--state`, gone at reboot.
    pub state: PathBuf,
}

impl Paths {
    /// Both directories; neither needs to exist yet.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            state: state.into(),
        }
    }

    /// `STATE/netns/<container id>`: what leads to the container's network namespace.
    #[must_use]
    pub fn netns(&self, container_id: &str) -> PathBuf {
        self.state.join("netns").join(container_id)
    }

    pub(super) fn definitions(&self) -> PathBuf {
        self.root.join("networks")
    }

    pub(super) fn networks(&self) -> PathBuf {
        self.state.join("networks")
    }

    pub(super) fn network(&self, name: &str) -> PathBuf {
        self.networks().join(name)
    }

    /// Attachment records; the leading dot keeps them apart from networks, whose names cannot start with one.
    pub(super) fn records(&self) -> PathBuf {
        self.networks().join(".attachments")
    }

    pub(super) fn released(&self) -> PathBuf {
        self.networks().join(".released")
    }
}

/// A network, as `berth network inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Its name, also its file name.
    pub name: String,
    /// 64 hex digits, as docker's network ids.
    pub id: String,
    /// Always `bridge`.
    pub driver: String,
    /// Link name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Addresses of the containers and the gateway.
    pub subnet: Ipv4Net,
    /// The host's address on the bridge.
    pub gateway: Ipv4Addr,
    /// The part of the subnet that addresses are handed out of, unless one is asked for; all of it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<Ipv4Net>,
    /// No way out of the network and none in.
    #[serde(default)]
    pub internal: bool,
    /// Free for the user.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Creation time, RFC 3339.
    pub created: String,
}

/// What `berth network create` asks.
#[derive(Debug, Clone, Default)]
pub struct NetworkOptions {
    /// The name.
    pub name: String,
    /// A free /24 of the pool when absent.
    pub subnet: Option<Ipv4Net>,
    /// The subnet's first address when absent.
    pub gateway: Option<Ipv4Addr>,
    /// Where addresses are handed out of, beneath the subnet.
    pub ip_range: Option<Ipv4Net>,
    /// No way out of the network and none in.
    pub internal: bool,
    /// `bridge` when absent; others are refused.
    pub driver: Option<String>,
    /// Free for the user.
    pub labels: BTreeMap<String, String>,
}

/// Value of `--network`, as docker spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The default network (`bridge`, `default`).
    Bridge,
    /// The host's own network namespace: no attach.
    Host,
    /// A namespace with loopback alone: attach with no endpoints.
    None,
    /// The namespace of another container (`container:NAME`): no attach, join [`Paths::netns`].
    Container(String),
    /// A user-defined network.
    Named(String),
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "bridge" | "default" | "" => Self::Bridge,
            "host" => Self::Host,
            "none" => Self::None,
            _ => match text.strip_prefix("container:") {
                Some("") => return Err(Error::Name(text.to_owned())),
                Some(target) => Self::Container(target.to_owned()),
                None => Self::Named(validate_name(text)?.to_owned()),
            },
        })
    }
}

/// Checks a network name: it becomes a file name and part of messages.
pub fn validate_name(name: &str) -> Result<&str> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() <= 128 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        Ok(name)
    } else {
        Err(Error::Name(name.to_owned()))
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The locally administered address made of an IP address: unique on a bridge as the IP is, and the same after a
    /// restart, so neighbours' ARP caches stay right.
    #[must_use]
    pub fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0xbe, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::Mac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        // Bit 0 of the first byte marks group addresses, which no station may send from (IEEE 802.3).
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(bad());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port asked for with `-p`; ranges are already expanded (see [`super::port::parse`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Host address to bind; 0.0.0.0 for all of them.
    pub host_ip: Ipv4Addr,
    /// Host port; 0 lets the kernel choose.
    pub host_port: u16,
    /// Port inside the container.
    pub container_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A container's place on one network, as asked. Part of the container's record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// `--ip`.
    pub ip: Option<Ipv4Addr>,
    /// `--mac-address`.
    pub mac: Option<Mac>,
    /// `--network-alias`, beside the container's name and short id.
    pub aliases: Vec<String>,
}

/// Where a container's links lead.
#[derive(Debug, Clone, Default)]
pub enum FarEnd {
    /// Into a network namespace made for it, to which [`Paths::netns`] leads.
    #[default]
    NewNamespace,
    /// Into a network namespace that somebody else made and removes.
    Namespace(PathBuf),
    /// To a microVM: each is a TAP, which its monitor opens by name; addresses and routes are the guest's to set.
    MicroVm,
}

/// Where a name of `--add-host` points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostTarget {
    /// A fixed address.
    Address(IpAddr),
    /// `host-gateway`: the host as seen from the container.
    Gateway,
}

/// Name resolution inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsOptions {
    /// `--dns`; the host's resolvers when empty.
    pub servers: Vec<IpAddr>,
    /// `--dns-search`; the host's when empty.
    pub search: Vec<Word>,
    /// `--dns-option`; the host's when empty.
    pub options: Vec<Word>,
    /// `--add-host`.
    pub extra_hosts: Vec<(Word, HostTarget)>,
}

/// Everything [`super::attach()`] needs to know.
#[derive(Debug, Clone, Default)]
pub struct AttachRequest {
    /// Full container id.
    pub container_id: String,
    /// Container name, resolvable by its neighbours.
    pub name: String,
    /// Host name inside; only for the hosts file, not resolvable by neighbours.
    pub hostname: String,
    /// Where its links lead.
    pub far_end: FarEnd,
    /// Networks; empty for `--network none`. The first that is not internal has the default route and the ports.
    pub networks: Vec<Endpoint>,
    /// Ports to publish.
    pub ports: Vec<PortMapping>,
    /// Name resolution.
    pub dns: DnsOptions,
}

/// The endpoint that has the default route and the published ports: the first whose network has a way out.
#[must_use]
pub fn primary(endpoints: &[EndpointStatus]) -> Option<&EndpointStatus> {
    endpoints.iter().find(|endpoint| !endpoint.internal)
}

/// A container's place on one network, as it is. Part of the record on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// The network's name.
    pub network: String,
    /// Link name of the network's bridge.
    pub bridge: String,
    /// The address.
    pub ip: Ipv4Addr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// The host's address on the network.
    pub gateway: Ipv4Addr,
    /// The link's Ethernet address inside the container.
    pub mac: Mac,
    /// Link name inside the container.
    pub ifname: String,
    /// Link name on the host: a port of the bridge.
    pub link: String,
    /// The network has no way out.
    pub internal: bool,
    /// Names the container answers to on this network, lower case.
    pub names: Vec<String>,
}
