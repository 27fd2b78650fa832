//! The way from 127.0.0.11:53 in a container's namespace to its name server's sockets there.

use std::path::Path;

use super::super::error::Result;
use super::super::netns::Visit;
use super::super::nft::{Batch, Chain, Family, Hook, Nft, Table, reg};
use super::sockets::{ADDRESS, PORT, Sockets};

const TABLE: Table = Table {
    family: Family::Ipv4,
    name: "berth",
};
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Opens both sockets in the namespace at `netns` and writes the rules there. The calling thread is back in its own
/// namespace afterwards.
pub(super) fn open(netns: &Path) -> Result<Sockets> {
    let _visit = Visit::enter(netns)?;
    let sockets = Sockets::open()?;
    let ports = sockets.ports();

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
    for (protocol, port) in [(17_u8, ports.udp), (6, ports.tcp)] {
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
    Ok(sockets)
}
