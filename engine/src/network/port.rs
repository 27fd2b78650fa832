//! Published ports: the `-p` syntax and the sockets that keep host ports ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

use super::error::{Error, Result};
use super::model::{PortMapping, Protocol};

/// Parses `[[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/tcp|/udp]` into one mapping a port. A single container port with a
/// range of host ports takes the range's first. A host port of 0 is one the kernel chooses, as is none.
pub fn parse(text: &str) -> Result<Vec<PortMapping>> {
    let bad = |reason| Error::PortSyntax {
        text: text.to_owned(),
        reason,
    };
    let (rest, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next().unwrap_or_default(), Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, "sctp")) => return Err(Error::Unsupported(format!("published SCTP port {text}"))),
        Some(_) => return Err(bad("the protocol is neither tcp nor udp")),
    };
    if rest.starts_with('[') {
        return Err(Error::Unsupported(format!(
            "published port on an IPv6 address {text}: networks are IPv4"
        )));
    }
    let mut parts = rest.rsplitn(3, ':');
    let container =
        range(parts.next().unwrap_or_default()).ok_or_else(|| bad("the container port is no port"))?;
    let host = match parts.next() {
        None | Some("" | "0") => None,
        Some(host) => Some(range(host).ok_or_else(|| bad("the host port is no port"))?),
    };
    let host_ip = match parts.next() {
        None | Some("") => Ipv4Addr::UNSPECIFIED,
        Some(ip) => ip
            .parse()
            .map_err(|_| bad("the host address is no IPv4 address"))?,
    };
    let host: Vec<u16> = match host {
        None => container.clone().map(|_| 0).collect(),
        Some(host) if host.len() == container.len() || container.len() == 1 => host.collect(),
        Some(_) => return Err(bad("the ranges differ in length")),
    };
    let pairs = host.into_iter().zip(container);
    Ok(pairs
        .map(|(host_port, container_port)| PortMapping {
            host_ip,
            host_port,
            container_port,
            protocol,
        })
        .collect())
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port != 0)
    };
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => Some(port(first)?..=port(last)?).filter(|range| !range.is_empty()),
    }
}

/// Binds every host port and says which the kernel chose where 0 was asked.
pub(super) fn reserve(wanted: &[PortMapping]) -> Result<(Vec<PortMapping>, Vec<OwnedFd>)> {
    let mut ports = Vec::with_capacity(wanted.len());
    let mut sockets = Vec::with_capacity(wanted.len());
    for port in wanted {
        let ip = IpAddr::V4(port.host_ip);
        let (host_port, socket) = hold(port).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::PortTaken {
                ip,
                port: port.host_port,
                protocol: port.protocol,
            },
            _ => Error::Port {
                ip,
                port: port.host_port,
                protocol: port.protocol,
                source,
            },
        })?;
        ports.push(PortMapping { host_port, ..*port });
        sockets.push(socket);
    }
    Ok((ports, sockets))
}

/// A bound TCP socket that does not listen refuses what gets past the rules, and still no other program can have the port.
fn hold(port: &PortMapping) -> io::Result<(u16, OwnedFd)> {
    let kind = match port.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let address = SocketAddrV4::new(port.host_ip, port.host_port);
    let open = || socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None);
    let mut socket = open()?;
    if let Err(errno) = bind(&socket, &address) {
        if errno != rustix::io::Errno::ADDRINUSE || port.protocol == Protocol::Udp {
            return Err(errno.into());
        }
        // Connections of a server that just ended may linger in TIME_WAIT, which only SO_REUSEADDR passes over. That
        // two such sockets could then share the port is what listen(2) rules out.
        socket = open()?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        sockopt::set_socket_reuseaddr(&socket, false)?;
        listen(&socket, 0)?;
    }
    let bound: SocketAddrV4 = getsockname(&socket)?.try_into()?;
    Ok((bound.port(), socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping(ip: &str, host: u16, container: u16, protocol: Protocol) -> PortMapping {
        PortMapping {
            host_ip: ip.parse().unwrap(),
            host_port: host,
            container_port: container,
            protocol,
        }
    }

    #[test]
    fn mappings_parse_as_docker_writes_them() {
        let one = |text: &str| parse(text).unwrap();
        assert_eq!(one("80"), [mapping("0.0.0.0", 0, 80, Protocol::Tcp)]);
        assert_eq!(one("8080:80/tcp"), [mapping("0.0.0.0", 8080, 80, Protocol::Tcp)]);
        assert_eq!(
            one("127.0.0.1:53:53/udp"),
            [mapping("127.0.0.1", 53, 53, Protocol::Udp)]
        );
        assert_eq!(one("127.0.0.1::53"), [mapping("127.0.0.1", 0, 53, Protocol::Tcp)]);
        assert_eq!(one("8000-8001:80-81").len(), 2);
        for chosen in ["0:53", "0.0.0.0:0:53", "::53"] {
            assert_eq!(
                one(chosen),
                [mapping("0.0.0.0", 0, 53, Protocol::Tcp)],
                "{chosen}"
            );
        }
        for bad in [
            "",
            "0",
            "80:0",
            "0-1:80-81",
            "a",
            "80:",
            "80/icmp",
            "70000",
            "2-1",
            "1-2:1-3",
            "x:1:2",
            "+1",
            "1:2:3:4",
            "-",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = reserve(&[mapping("127.0.0.1", port, 80, Protocol::Tcp)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("port {port}/tcp on 127.0.0.1 is taken")
        );
        let (ports, _held) = reserve(&[mapping("127.0.0.1", 0, 80, Protocol::Udp)]).unwrap();
        assert!(
            reserve(&ports).is_err(),
            "a reserved port cannot be reserved again"
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[0-9a-z:./\\[\\]-]{0,24}") {
            let _ = parse(&text);
        }
    }
}
