//! Connection tracking entries of published UDP ports, and of microVMs' questions.
//!
//! UDP has no end of a connection: a peer that keeps sending keeps its entry, and with it the translation, or the lack of
//! one, that its first packet met. So the entries go when a port changes hands, and those of questions when their address
//! becomes a microVM's: its name server has other ports than the last one's. TCP needs none of this, for a connection
//! to a container that is gone is broken anyway, and new ones have new ports.

use std::io;
use std::net::Ipv4Addr;

use berth_sys::netlink::{Answer, Buffer};

use super::super::dns;
use super::super::error::{Error, Result};
use super::batch::Nft;

const HEADER_LEN: usize = 20;
/// NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE.
const DELETE: u16 = 1 << 8 | 2;
const REQUEST_ACK: u16 = 0x1 | 0x4;
const UDP: u8 = 17;

// Which parts of a tuple are compared (net/netfilter/nf_internals.h).
const IP_SRC: u32 = 1;
const IP_DST: u32 = 1 << 1;
const PROTO_NUM: u32 = 1 << 3;
const DST_PORT: u32 = 1 << 5;

impl Nft {
    /// Drops the entries of UDP packets to a port of this host; to all its addresses when `host_ip` is 0.0.0.0. Walks the
    /// kernel's table. Does nothing before Linux 5.8, which would ignore the filter and drop every entry there is.
    pub(in crate::network) fn forget_udp(&mut self, host_ip: Ipv4Addr, host_port: u16) -> Result<()> {
        let to = Some(host_ip).filter(|ip| !ip.is_unspecified());
        self.forget_flows(None, to, host_port)
    }

    /// Drops the entries of questions that `from` asked a name server by UDP, as [`Nft::forget_udp`] does.
    pub(in crate::network) fn forget_questions(&mut self, from: Ipv4Addr) -> Result<()> {
        self.forget_flows(Some(from), None, dns::PORT)
    }

    fn forget_flows(&mut self, from: Option<Ipv4Addr>, to: Option<Ipv4Addr>, port: u16) -> Result<()> {
        if !filters() {
            return Ok(());
        }
        let sequence = self.connection.next_sequence();
        let message = request(from, to, port, sequence);
        let mut errno = 0;
        let failed = |source| Error::Nft {
            operation: "forget connections",
            source,
        };
        self.connection
            .exchange(&message, |answer| match answer {
                Answer::Ack { errno: code, .. } => {
                    errno = code;
                    true
                }
                Answer::Message { .. } => false,
            })
            .map_err(failed)?;
        match errno {
            // EINVAL: a kernel without ctnetlink.
            0 | libc::EINVAL => Ok(()),
            code => Err(failed(io::Error::from_raw_os_error(code))),
        }
    }
}

fn request(from: Option<Ipv4Addr>, to: Option<Ipv4Addr>, port: u16, sequence: u32) -> Vec<u8> {
    let mut buffer = Buffer::default();
    buffer.bytes.resize(HEADER_LEN, 0);
    let mut flags = PROTO_NUM | DST_PORT;
    buffer.nest(1, |b| {
        if from.is_some() || to.is_some() {
            b.nest(1, |b| {
                for (attribute, ip, flag) in [(1, from, IP_SRC), (2, to, IP_DST)] {
                    if let Some(ip) = ip {
                        b.put(attribute, &ip.octets());
                        flags |= flag;
                    }
                }
            });
        }
        b.nest(2, |b| {
            b.put(1, &[UDP]);
            b.put(3, &port.to_be_bytes());
        });
    });
    buffer.nest(25, |b| b.put(1, &flags.to_ne_bytes()));
    let length = u32::try_from(buffer.bytes.len()).unwrap_or(u32::MAX);
    buffer.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    buffer.bytes[4..6].copy_from_slice(&DELETE.to_ne_bytes());
    buffer.bytes[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
    buffer.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    // Only from version 1 on is the family looked at.
    buffer.bytes[16] = 2;
    buffer.bytes[17] = 1;
    buffer.bytes
}

/// Has the kernel CTA_FILTER (Linux 5.8)?
fn filters() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_str().unwrap_or_default();
    version(release).is_some_and(|version| version >= (5, 8))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.5"), Some((6, 18)));
        assert_eq!(version("5.8-rc1+"), Some((5, 8)));
        assert!(version("5.4.0-150-generic").unwrap() < (5, 8));
        assert_eq!(version("linux"), None);
    }
}
