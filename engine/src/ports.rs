//! A container's ports: exposed by the image's `EXPOSE` or by `--expose`, published by `-p` or `-P`.

use std::net::Ipv4Addr;

use crate::config::ContainerConfig;
use crate::container::State;
use crate::error::{Error, Result};
use crate::network::{PortMapping, Protocol};

/// A port of a container that runs. Sorts as docker lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenPort {
    /// Inside the container.
    pub number: u16,
    /// The host's address and port it is published at; none when it is only exposed.
    pub published: Option<(Ipv4Addr, u16)>,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
}

/// What is published, then what is only exposed. Empty unless it runs; in a network that is not its own, or none, nothing
/// counts as exposed, as with docker.
pub(crate) fn open(config: &ContainerConfig, state: &State) -> Vec<OpenPort> {
    if state.pid <= 0 {
        return Vec::new();
    }
    let mut open: Vec<OpenPort> = state
        .ports
        .iter()
        .map(|port| OpenPort {
            number: port.container_port,
            published: Some((port.host_ip, port.host_port)),
            protocol: word(port.protocol),
        })
        .collect();
    if state.endpoints.is_empty() {
        return open;
    }
    for (number, protocol) in config.exposed_ports.iter().filter_map(|text| parse(text)) {
        if !open
            .iter()
            .any(|port| (port.number, port.protocol) == (number, protocol))
        {
            open.push(OpenPort {
                number,
                published: None,
                protocol,
            });
        }
    }
    open
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// `--expose PORT[-PORT][/PROTOCOL]`, one `PORT/PROTOCOL` each.
pub(crate) fn expose(text: &str) -> Result<Vec<String>> {
    let bad = |why: &str| Error::Invalid {
        what: format!("exposed port {text:?}"),
        why: why.into(),
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(bad("the protocol is none of tcp, udp and sctp"));
    }
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| bad("it is no port or range of ports"))
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(bad("the range ends before it begins"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// An exposed port. An image may say anything; what is no port is none.
fn parse(text: &str) -> Option<(u16, &'static str)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = ["tcp", "udp", "sctp"]
        .into_iter()
        .find(|known| *known == protocol)?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((port, protocol))
}

/// `-P`: an exposed port at one the kernel chooses. SCTP cannot be published.
pub(crate) fn publish(exposed: &str) -> Option<PortMapping> {
    let (container_port, protocol) = parse(exposed)?;
    Some(PortMapping {
        host_ip: Ipv4Addr::UNSPECIFIED,
        host_port: 0,
        container_port,
        protocol: [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|known| word(*known) == protocol)?,
    })
}
