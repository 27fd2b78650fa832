//! Sockets inside the container's namespace, and the rules that lead 127.0.0.11:53 there to them.
//!
//! The sockets have ports the kernel chose, so that a container may run a name server of its own on port 53.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

use super::super::error::{Error, Result};
use super::super::netns::Visit;
use super::super::nft::{Batch, Chain, Family, Hook, Nft, Table, reg};

/// What containers have in their `/etc/resolv.conf`; see [`super::super::files::NAME_SERVER`].
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;

const TABLE: Table = Table {
    family: Family::Ipv4,
    name: "berth",
};
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Opens both sockets in the namespace at `netns` and writes the rules there. The calling thread is back in its own
/// namespace afterwards.
pub(super) fn open(netns: &Path) -> Result<(UdpSocket, TcpListener)> {
    let _visit = Visit::enter(netns)?;
    let failed = |source| Error::Netns {
        operation: "open the name server in",
        path: netns.into(),
        source,
    };
    let udp = UdpSocket::bind((ADDRESS, 0)).map_err(failed)?;
    let tcp = TcpListener::bind((ADDRESS, 0)).map_err(failed)?;
    udp.set_nonblocking(true).map_err(failed)?;
    tcp.set_nonblocking(true).map_err(failed)?;
    let udp_port = udp.local_addr().map_err(failed)?.port();
    let tcp_port = tcp.local_addr().map_err(failed)?.port();

    let mut nft = Nft::open()?;
    let mut batch = Batch::new();
    if nft.has_table(TABLE)? {
        // A shim before us was killed: its ports are nobody's.
        batch.remove_table(TABLE);
    }
    batch.table(TABLE);
    let chain = "output";
    let hook = Hook {
        kind: "nat",
        number: 3,
        priority: -100,
    };
    batch.chain(
        TABLE,
        Chain {
            name: chain,
            hook: Some(hook),
        },
    );
    for (protocol, port) in [(17_u8, udp_port), (6, tcp_port)] {
        batch.rule(TABLE, chain, |rule| {
            rule.l4proto(reg::A).equal(reg::A, &[protocol]);
            rule.payload(NETWORK, 16, 4, reg::A)
                .equal(reg::A, &ADDRESS.octets());
            rule.payload(TRANSPORT, 2, 2, reg::A)
                .equal(reg::A, &PORT.to_be_bytes());
            rule.constant(&ADDRESS.octets(), reg::A)
                .constant(&port.to_be_bytes(), reg::word(1));
            rule.dnat(reg::A, reg::word(1));
        });
    }
    nft.commit(batch, "lead a container's queries to its name server")?;
    Ok((udp, tcp))
}
