//! Links, addresses and routes by rtnetlink(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use berth_sys::netlink::{Answer, Connection, Subsystem};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use berth_sys::tap;

use super::error::{Error, Result};
use super::model::{EndpointStatus, Mac, Network};

/// An rtnetlink connection to one network namespace.
#[derive(Debug)]
pub(super) struct Links {
    connection: Connection,
}

/// One request and what to say when it is refused.
struct Request<'a> {
    message: RouteNetlinkMessage,
    flags: u16,
    operation: &'static str,
    object: &'a str,
}

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// Body of the message that ends a dump: one error number (netlink(7), `NLMSG_DONE`).
const DONE_LEN: usize = 4;

impl Links {
    /// Connects to the calling thread's network namespace.
    pub(super) fn open() -> Result<Self> {
        let connection = Connection::open(Subsystem::Route).map_err(|source| Error::Link {
            operation: "open",
            object: "rtnetlink".into(),
            source,
        })?;
        Ok(Self { connection })
    }

    /// Sends all requests in one datagram; the first refusal is the error, though the kernel still tried the rest.
    fn send(&mut self, requests: Vec<Request<'_>>) -> Result<()> {
        let mut bytes = Vec::with_capacity(1024);
        let mut first = 0;
        let count = requests.len();
        let mut labels = Vec::with_capacity(count);
        for request in requests {
            let sequence = self.connection.next_sequence();
            if labels.is_empty() {
                first = sequence;
            }
            labels.push((request.operation, request.object));
            append(
                &mut bytes,
                request.message,
                NLM_F_REQUEST | NLM_F_ACK | request.flags,
                sequence,
            );
        }
        let mut refused: Option<(usize, i32)> = None;
        let mut answered = 0;
        let io = self.connection.exchange(&bytes, |answer| {
            if let Answer::Ack { sequence, errno } = answer {
                let index = sequence.wrapping_sub(first) as usize;
                if index < count {
                    answered += 1;
                    if errno != 0 && refused.is_none() {
                        refused = Some((index, errno));
                    }
                }
            }
            answered == count
        });
        let failed = |index: usize, source| {
            let (operation, object) = labels.get(index).copied().unwrap_or(("change", "links"));
            Error::Link {
                operation,
                object: object.to_owned(),
                source,
            }
        };
        io.map_err(|source| failed(0, source))?;
        match refused {
            Some((index, errno)) => Err(failed(index, io::Error::from_raw_os_error(errno))),
            None => Ok(()),
        }
    }

    /// Index of a link, `None` when there is no such link.
    pub(super) fn index(&mut self, name: &str) -> Result<Option<u32>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let sequence = self.connection.next_sequence();
        let mut bytes = Vec::with_capacity(64);
        append(
            &mut bytes,
            RouteNetlinkMessage::GetLink(message),
            NLM_F_REQUEST,
            sequence,
        );
        let mut found = Ok(None);
        self.connection
            .exchange(&bytes, |answer| {
                match answer {
                    // `struct ifinfomsg`: the index is its second word.
                    Answer::Message { body } => {
                        found = Ok(body
                            .get(4..8)
                            .and_then(|b| b.try_into().ok())
                            .map(u32::from_ne_bytes));
                    }
                    Answer::Ack { errno, .. } if errno == libc::ENODEV => {}
                    Answer::Ack { errno, .. } => found = Err(io::Error::from_raw_os_error(errno)),
                }
                true
            })
            .and(found)
            .map_err(|source| Error::Link {
                operation: "find link",
                object: name.to_owned(),
                source,
            })
    }

    /// Makes a network's bridge, up and with the gateway's address.
    pub(super) fn create_bridge(&mut self, network: &Network) -> Result<u32> {
        let mut message = LinkMessage::default();
        up(&mut message);
        message.attributes = vec![
            LinkAttribute::IfName(network.bridge.clone()),
            // Without an address of its own a bridge takes the smallest of its ports', which changes as they come and go.
            LinkAttribute::Address(Mac::of(network.gateway).0.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        self.send(vec![Request {
            message: RouteNetlinkMessage::NewLink(message),
            flags: NEW,
            operation: "create bridge",
            object: &network.bridge,
        }])?;
        let index = self.require(&network.bridge)?;
        self.send(vec![address(
            index,
            network.gateway,
            network.subnet.prefix_len(),
            &network.bridge,
        )])?;
        Ok(index)
    }

    /// Makes a veth whose one end is a port of the bridge and whose other is born inside `netns`: it never shows on the
    /// host, and needs no later move, which would cost a grace period of RCU.
    pub(super) fn create_veth(
        &mut self,
        endpoint: &EndpointStatus,
        bridge: u32,
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        // Down as yet: veth refuses to open an end before both know each other (ENOTCONN).
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(endpoint.ifname.clone()),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
            LinkAttribute::Address(endpoint.mac.0.to_vec()),
        ];
        let mut message = port(endpoint, bridge);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.send(vec![
            change(message, NEW, "create veth", endpoint),
            change(hairpin(endpoint), 0, "set up bridge port", endpoint),
            change(raised(endpoint), 0, "bring up", endpoint),
        ])
    }

    /// Makes a TAP that is a port of the bridge, in the calling thread's namespace, which is this connection's. It is there
    /// until it is deleted, whether a monitor has opened it or not.
    pub(super) fn create_tap(&mut self, endpoint: &EndpointStatus, bridge: u32) -> Result<()> {
        let device = tap::device().map_err(Error::file("open", tap::DEVICE))?;
        tap::create(device.as_fd(), &endpoint.link).map_err(|source| Error::Link {
            operation: "create TAP",
            object: endpoint.link.clone(),
            source,
        })?;
        // Only one descriptor may be at its end, and that is the monitor's.
        drop(device);
        self.send(vec![
            change(port(endpoint, bridge), 0, "make a bridge port of", endpoint),
            change(hairpin(endpoint), 0, "set up bridge port", endpoint),
            change(raised(endpoint), 0, "bring up", endpoint),
        ])
    }

    /// Inside the container: loopback up, addresses, and the default route through `gateway`.
    pub(super) fn configure(
        &mut self,
        endpoints: &[EndpointStatus],
        gateway: Option<Ipv4Addr>,
    ) -> Result<()> {
        let mut requests = Vec::with_capacity(endpoints.len() + 2);
        let mut loopback = LinkMessage::default();
        up(&mut loopback);
        // Loopback is link 1 of every namespace (net/core/dev.h, LOOPBACK_IFINDEX).
        loopback.header.index = 1;
        requests.push(Request {
            message: RouteNetlinkMessage::SetLink(loopback),
            flags: 0,
            operation: "bring up",
            object: "lo",
        });
        for endpoint in endpoints {
            let index = self.require(&endpoint.ifname)?;
            let mut link = LinkMessage::default();
            up(&mut link);
            link.header.index = index;
            requests.push(Request {
                message: RouteNetlinkMessage::SetLink(link),
                flags: 0,
                operation: "bring up",
                object: &endpoint.ifname,
            });
            requests.push(address(index, endpoint.ip, endpoint.prefix, &endpoint.ifname));
        }
        if let Some(gateway) = gateway {
            requests.push(default_route(gateway));
        }
        self.send(requests)
    }

    /// Another default route, after the first went.
    pub(super) fn set_default_route(&mut self, gateway: Ipv4Addr) -> Result<()> {
        self.send(vec![default_route(gateway)])
    }

    /// Deletes a link; absent is fine.
    pub(super) fn delete(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let request = Request {
            message: RouteNetlinkMessage::DelLink(message),
            flags: 0,
            operation: "delete link",
            object: name,
        };
        match self.send(vec![request]) {
            Err(Error::Link { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Is any link a port of this bridge? Not of one that does not exist.
    pub(super) fn has_ports(&mut self, bridge: &str) -> Result<bool> {
        let Some(index) = self.index(bridge)? else {
            return Ok(false);
        };
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Controller(index));
        let sequence = self.connection.next_sequence();
        let mut bytes = Vec::with_capacity(64);
        append(
            &mut bytes,
            RouteNetlinkMessage::GetLink(message),
            NLM_F_REQUEST | NLM_F_DUMP,
            sequence,
        );
        let mut ports = 0;
        self.connection
            .exchange(&bytes, |answer| match answer {
                Answer::Message { body } if body.len() > DONE_LEN => {
                    ports += 1;
                    false
                }
                _ => true,
            })
            .map_err(|source| Error::Link {
                operation: "list the ports of",
                object: bridge.to_owned(),
                source,
            })?;
        Ok(ports > 0)
    }

    fn require(&mut self, name: &str) -> Result<u32> {
        self.index(name)?.ok_or_else(|| Error::Link {
            operation: "find link",
            object: name.to_owned(),
            source: io::Error::from_raw_os_error(libc::ENODEV),
        })
    }
}

fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let at = bytes.len();
    bytes.resize(at + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[at..]);
}

fn up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

/// A link as a port of the bridge, down as yet.
fn port(endpoint: &EndpointStatus, bridge: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(endpoint.link.clone()),
        LinkAttribute::Controller(bridge),
    ];
    message
}

/// A container may call its own published port. With br_netfilter the bridge itself turns the frame round, and without
/// hairpin mode would not send it out by the port it came in. The kernel reads a port's settings when a link is changed,
/// not when it is made: a message of its own, in the same datagram. And before the link is up: each change of one that is has
/// IPv6 walk all routes of the namespace, of which every container brings two.
fn hairpin(endpoint: &EndpointStatus) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(endpoint.link.clone()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]),
    ];
    message
}

/// A link brought up.
fn raised(endpoint: &EndpointStatus) -> LinkMessage {
    let mut message = LinkMessage::default();
    up(&mut message);
    message.attributes = vec![LinkAttribute::IfName(endpoint.link.clone())];
    message
}

fn change<'a>(
    message: LinkMessage,
    flags: u16,
    operation: &'static str,
    endpoint: &'a EndpointStatus,
) -> Request<'a> {
    Request {
        message: RouteNetlinkMessage::NewLink(message),
        flags,
        operation,
        object: &endpoint.link,
    }
}

fn address(index: u32, ip: Ipv4Addr, prefix: u8, link: &str) -> Request<'_> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = index;
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(ip)),
        AddressAttribute::Address(IpAddr::V4(ip)),
        AddressAttribute::Broadcast(Ipv4Addr::from(u32::from(ip) | host_bits)),
    ];
    Request {
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NEW,
        operation: "set the address of",
        object: link,
    }
}

fn default_route(gateway: Ipv4Addr) -> Request<'static> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NEW,
        operation: "set",
        object: "the default route",
    }
}
