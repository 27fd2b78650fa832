//! berth's nftables rules on the host: `table inet berth` and `table bridge berth`.
//!
//! The rules are written once and never again; what comes and goes with networks, containers and ports are elements of
//! hashed sets and maps, so a packet meets the same dozen rules with one container and with a thousand.
//!
//! ```text
//! bridge berth  prerouting   port of ours? ─► link, MAC and IPv4 (or ARP) source as leased, else drop
//! inet berth    raw          127.0.0.0/8 from or to any other link than lo: drop        (CVE-2020-8558)
//!               prerouting   to this host: destination from @name_servers, @published or @published_any
//!               output       the same for the host's own connections
//!               forward      between networks, into a network, out of an internal one: drop
//!               postrouting  masquerade what leaves; the host's own 127.0.0.1; a network's way back to itself.
//!                            All others keep their source address                       (CVE-2021-20199)
//! ```

use std::net::Ipv4Addr;

use super::dns;
use super::model::{EndpointStatus, Network, PortMapping, Protocol};
use super::nft::{Batch, Chain, Change, Element, Family, Hook, Set, Table, Verdict, reg};
use super::record::NameServer;

const INET: Table = Table {
    family: Family::Inet,
    name: "berth",
};
const BRIDGE: Table = Table {
    family: Family::Bridge,
    name: "berth",
};

/// All that is berth's.
pub(super) const TABLES: [Table; 2] = [INET, BRIDGE];

// Data types as nftables numbers them; a concatenation packs them by 6 bits, first highest.
const IPV4: u32 = 7;
const ETHER: u32 = 9;
const PROTO: u32 = 12;
const SERVICE: u32 = 13;
const IFNAME: u32 = 41;

const BRIDGES: Set = Set {
    name: "bridges",
    key: (IFNAME, 16),
    data: None,
    interval: false,
    fields: &[],
};
/// Pairs of a bridge with itself: nftables compares a register with constants, not with another register.
const SAME: Set = Set {
    name: "same",
    key: (IFNAME << 6 | IFNAME, 32),
    data: None,
    interval: false,
    fields: &[],
};
const INTERNAL: Set = Set {
    name: "internal",
    key: (IFNAME, 16),
    data: None,
    interval: false,
    fields: &[],
};
const SUBNETS: Set = Set {
    name: "subnets",
    key: (IPV4, 4),
    data: None,
    interval: true,
    fields: &[],
};
/// Each subnet with its bridge. With br_netfilter a frame that stays on a bridge has no incoming link left when it is
/// masqueraded, so a network's way back to itself is told by the source address.
const HOMES: Set = Set {
    name: "homes",
    key: (IPV4 << 6 | IFNAME, 20),
    data: None,
    interval: true,
    fields: &[4, 16],
};
const TARGET: (u32, u32) = (IPV4 << 6 | SERVICE, 8);
const PUBLISHED: Set = Set {
    name: "published",
    key: (IPV4 << 12 | PROTO << 6 | SERVICE, 12),
    data: Some(TARGET),
    interval: false,
    fields: &[],
};
const PUBLISHED_ANY: Set = Set {
    name: "published_any",
    key: (PROTO << 6 | SERVICE, 8),
    data: Some(TARGET),
    interval: false,
    fields: &[],
};
/// Where the questions go that a microVM asks its gateway. By link too: only what came by the bridge has a source that the
/// guard has checked.
const NAME_SERVERS: Set = Set {
    name: "name_servers",
    key: (IFNAME << 24 | IPV4 << 18 | IPV4 << 12 | PROTO << 6 | SERVICE, 32),
    data: Some(TARGET),
    interval: false,
    fields: &[],
};
const PORTS: Set = Set {
    name: "ports",
    key: (IFNAME, 16),
    data: None,
    interval: false,
    fields: &[],
};
const SOURCES: Set = Set {
    name: "sources",
    key: (IFNAME << 12 | ETHER << 6 | IPV4, 28),
    data: None,
    interval: false,
    fields: &[],
};

const LOOPBACK: &[u8] = &[127];
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const SOURCE_AT: u32 = 12;
const DESTINATION_AT: u32 = 16;

const fn base(name: &'static str, kind: &'static str, number: u32, priority: i32) -> Chain {
    Chain {
        name,
        hook: Some(Hook {
            kind,
            number,
            priority,
        }),
    }
}

/// Both tables with their sets, chains and rules, no elements. For a host that has neither.
pub(super) fn create(batch: &mut Batch) {
    batch.table(INET);
    batch.table(BRIDGE);
    for set in [
        BRIDGES,
        SAME,
        INTERNAL,
        SUBNETS,
        HOMES,
        NAME_SERVERS,
        PUBLISHED,
        PUBLISHED_ANY,
    ] {
        batch.set(INET, set);
    }
    batch.set(BRIDGE, PORTS);
    batch.set(BRIDGE, SOURCES);
    guard_sources(batch);
    guard_loopback(batch);
    publish(batch);
    forward(batch);
    masquerade(batch);
}

fn guard_sources(batch: &mut Batch) {
    batch.chain(
        BRIDGE,
        Chain {
            name: "guard",
            hook: None,
        },
    );
    batch.rule(BRIDGE, "guard", |rule| {
        rule.payload(LINK, 12, 2, reg::A).equal(reg::A, &[0x08, 0x00]);
        rule.iifname(reg::A)
            .payload(LINK, 6, 6, reg::word(4))
            .payload(NETWORK, SOURCE_AT, 4, reg::word(6));
        rule.lookup(SOURCES.name, reg::A).verdict(Verdict::Accept);
    });
    batch.rule(BRIDGE, "guard", |rule| {
        rule.payload(LINK, 12, 2, reg::A).equal(reg::A, &[0x08, 0x06]);
        // The frame's own source too: the bridge learns from that one.
        rule.iifname(reg::A)
            .payload(LINK, 6, 6, reg::word(4))
            .payload(NETWORK, 14, 4, reg::word(6));
        rule.lookup(SOURCES.name, reg::A);
        rule.iifname(reg::A)
            .payload(NETWORK, 8, 6, reg::word(4))
            .payload(NETWORK, 14, 4, reg::word(6));
        rule.lookup(SOURCES.name, reg::A).verdict(Verdict::Accept);
    });
    // IPv6 (no router advertisement reaches a neighbour or the host), VLAN tags, and whatever else could carry an address.
    batch.rule(BRIDGE, "guard", |rule| rule.verdict(Verdict::Drop));
    batch.chain(BRIDGE, base("prerouting", "filter", 0, -300));
    batch.rule(BRIDGE, "prerouting", |rule| {
        rule.iifname(reg::A)
            .lookup(PORTS.name, reg::A)
            .verdict(Verdict::Jump("guard"));
    });
}

fn guard_loopback(batch: &mut Batch) {
    // Before connection tracking: what is dropped here leaves no trace there.
    batch.chain(INET, base("raw", "filter", 0, -300));
    for offset in [SOURCE_AT, DESTINATION_AT] {
        batch.rule(INET, "raw", |rule| {
            rule.iifname(reg::A).differ(reg::A, &name("lo"));
            rule.ipv4()
                .payload(NETWORK, offset, 1, reg::A)
                .equal(reg::A, LOOPBACK)
                .verdict(Verdict::Drop);
        });
    }
}

fn publish(batch: &mut Batch) {
    batch.chain(
        INET,
        Chain {
            name: "publish",
            hook: None,
        },
    );
    // Before the ports: a name server that somebody publishes on port 53 of every address is not for these questions.
    batch.rule(INET, "publish", |rule| {
        rule.ipv4()
            .iifname(reg::A)
            .payload(NETWORK, SOURCE_AT, 4, reg::word(4))
            .payload(NETWORK, DESTINATION_AT, 4, reg::word(5))
            .l4proto(reg::word(6))
            .payload(TRANSPORT, 2, 2, reg::word(7));
        rule.map(NAME_SERVERS.name, reg::A, reg::A)
            .dnat(reg::A, reg::word(1));
    });
    batch.rule(INET, "publish", |rule| {
        rule.ipv4()
            .payload(NETWORK, DESTINATION_AT, 4, reg::A)
            .l4proto(reg::word(1))
            .payload(TRANSPORT, 2, 2, reg::word(2));
        rule.map(PUBLISHED.name, reg::A, reg::A)
            .dnat(reg::A, reg::word(1));
    });
    batch.rule(INET, "publish", |rule| {
        rule.l4proto(reg::A).payload(TRANSPORT, 2, 2, reg::word(1));
        rule.map(PUBLISHED_ANY.name, reg::A, reg::A)
            .dnat(reg::A, reg::word(1));
    });
    for (chain, hook) in [("prerouting", 0), ("output", 3)] {
        batch.chain(INET, base(chain, "nat", hook, -100));
        batch.rule(INET, chain, |rule| {
            rule.ipv4().local_destination().verdict(Verdict::Jump("publish"));
        });
    }
}

fn forward(batch: &mut Batch) {
    batch.chain(INET, base("forward", "filter", 2, 0));
    batch.rule(INET, "forward", |rule| {
        rule.known().verdict(Verdict::Accept);
    });
    batch.rule(INET, "forward", |rule| {
        rule.iifname(reg::A)
            .oifname(reg::B)
            .lookup(SAME.name, reg::A)
            .verdict(Verdict::Accept);
    });
    batch.rule(INET, "forward", |rule| {
        rule.iifname(reg::A)
            .lookup(INTERNAL.name, reg::A)
            .verdict(Verdict::Drop);
    });
    batch.rule(INET, "forward", |rule| {
        rule.oifname(reg::A)
            .lookup(INTERNAL.name, reg::A)
            .verdict(Verdict::Drop);
    });
    batch.rule(INET, "forward", |rule| {
        rule.oifname(reg::A)
            .lookup(BRIDGES.name, reg::A)
            .translated()
            .verdict(Verdict::Accept);
    });
    // Unpublished ports: neither from another network, nor from a neighbour of the host who routes to it by hand.
    batch.rule(INET, "forward", |rule| {
        rule.oifname(reg::A)
            .lookup(BRIDGES.name, reg::A)
            .verdict(Verdict::Drop);
    });
}

fn masquerade(batch: &mut Batch) {
    batch.chain(INET, base("postrouting", "nat", 4, 100));
    // The container could not answer to 127.0.0.1.
    batch.rule(INET, "postrouting", |rule| {
        rule.oifname(reg::A).lookup(BRIDGES.name, reg::A);
        rule.ipv4()
            .payload(NETWORK, SOURCE_AT, 1, reg::A)
            .equal(reg::A, LOOPBACK)
            .masquerade();
    });
    batch.rule(INET, "postrouting", |rule| {
        rule.ipv4()
            .payload(NETWORK, SOURCE_AT, 4, reg::A)
            .lookup(SUBNETS.name, reg::A);
        rule.oifname(reg::A).lookup_not(BRIDGES.name, reg::A).masquerade();
    });
    // A container that calls its network's published port: the answer must come back through the host.
    batch.rule(INET, "postrouting", |rule| {
        rule.ipv4()
            .payload(NETWORK, SOURCE_AT, 4, reg::A)
            .oifname(reg::word(1))
            .lookup(HOMES.name, reg::A)
            .translated()
            .masquerade();
    });
}

/// What a network puts into the sets. Adding it again changes nothing.
pub(super) fn network(batch: &mut Batch, change: Change, network: &Network) {
    let bridge = name(&network.bridge).to_vec();
    let pair = [bridge.clone(), bridge.clone()].concat();
    batch.elements(change, INET, BRIDGES.name, &[(bridge.clone(), None)]);
    batch.elements(change, INET, SAME.name, &[(pair, None)]);
    if network.internal {
        batch.elements(change, INET, INTERNAL.name, &[(bridge.clone(), None)]);
    } else {
        let first = network.subnet.network().octets();
        let end = u32::from(network.subnet.broadcast())
            .saturating_add(1)
            .to_be_bytes();
        batch.interval(change, INET, SUBNETS.name, &first, &end);
        let last = network.subnet.broadcast().octets();
        let home = |address: [u8; 4]| [&address[..], &bridge].concat();
        batch.range(change, INET, HOMES.name, &home(first), &home(last));
    }
}

/// What a container's place on a network puts into the sets.
pub(super) fn endpoint(batch: &mut Batch, change: Change, endpoint: &EndpointStatus) {
    // The source first: between the two messages nothing runs, but a reader expects the permission before the check.
    source(batch, change, endpoint);
    guard(batch, change, endpoint);
}

/// What a container may send. Without it, and with the [`guard`], it is nothing.
pub(super) fn source(batch: &mut Batch, change: Change, endpoint: &EndpointStatus) {
    let mut source = name(&endpoint.link).to_vec();
    source.extend_from_slice(&endpoint.mac.0);
    source.extend_from_slice(&[0, 0]);
    source.extend_from_slice(&endpoint.ip.octets());
    batch.elements(change, BRIDGE, SOURCES.name, &[(source, None)]);
}

/// That a link is held to what its container may send.
pub(super) fn guard(batch: &mut Batch, change: Change, endpoint: &EndpointStatus) {
    let port = name(&endpoint.link).to_vec();
    batch.elements(change, BRIDGE, PORTS.name, &[(port, None)]);
}

/// Published ports of one container.
pub(super) fn ports(batch: &mut Batch, change: Change, ports: &[PortMapping], target: Ipv4Addr) {
    let (any, bound): (Vec<&PortMapping>, Vec<&PortMapping>) =
        ports.iter().partition(|p| p.host_ip.is_unspecified());
    for (set, ports) in [(PUBLISHED_ANY.name, any), (PUBLISHED.name, bound)] {
        if !ports.is_empty() {
            let elements: Vec<Element> = ports.into_iter().map(|port| element(port, target)).collect();
            batch.elements(change, INET, set, &elements);
        }
    }
}

/// That a microVM's questions to its gateways, port 53, go to its own name server.
pub(super) fn name_server(
    batch: &mut Batch,
    change: Change,
    endpoints: &[&EndpointStatus],
    server: Option<NameServer>,
) {
    let Some(NameServer { udp, tcp }) = server else {
        return;
    };
    let mut elements: Vec<Element> = Vec::with_capacity(2 * endpoints.len());
    for endpoint in endpoints {
        for (protocol, to) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
            let mut key = name(&endpoint.bridge).to_vec();
            key.extend_from_slice(&endpoint.ip.octets());
            key.extend_from_slice(&endpoint.gateway.octets());
            key.extend_from_slice(&number(protocol));
            key.extend_from_slice(&service(dns::PORT));
            elements.push((key, Some(target(dns::ADDRESS, to))));
        }
    }
    batch.elements(change, INET, NAME_SERVERS.name, &elements);
}

fn element(port: &PortMapping, to: Ipv4Addr) -> Element {
    let mut key = Vec::with_capacity(12);
    if !port.host_ip.is_unspecified() {
        key.extend_from_slice(&port.host_ip.octets());
    }
    key.extend_from_slice(&number(port.protocol));
    key.extend_from_slice(&service(port.host_port));
    (key, Some(target(to, port.container_port)))
}

fn target(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    [ip.octets(), service(port)].concat()
}

/// Each part of a concatenation is padded to 4 bytes.
fn number(protocol: Protocol) -> [u8; 4] {
    match protocol {
        Protocol::Tcp => [6, 0, 0, 0],
        Protocol::Udp => [17, 0, 0, 0],
    }
}

fn service(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// A link name as the kernel compares it: 16 bytes, zero-filled.
fn name(link: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(link.bytes().take(15)) {
        *to = from;
    }
    bytes
}
