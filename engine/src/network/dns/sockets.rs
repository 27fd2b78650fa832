//! Where questions arrive: at 127.0.0.11, in the container's namespace or, for a microVM, in the host's.
//!
//! The ports are such as the kernel chose, so that a container may run a name server of its own on port 53, and a host may
//! have many; rules lead there ([`redirect`](super::redirect), [`firewall`](super::super::firewall)).

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use super::super::error::{Error, Result};
use super::super::record::NameServer;

/// What containers have in their `/etc/resolv.conf`. In the host's namespace nobody but the host itself can call it, as
/// any of 127.0.0.0/8: what else gets there, our rules have sent.
pub(in crate::network) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Where names are asked for.
pub(in crate::network) const PORT: u16 = 53;

/// Both sockets of a name server. They do not block.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    ports: NameServer,
}

impl Sockets {
    /// Opens both in the calling thread's network namespace.
    pub(in crate::network) fn open() -> Result<Self> {
        let open = || -> io::Result<Self> {
            let udp = UdpSocket::bind((ADDRESS, 0))?;
            let tcp = TcpListener::bind((ADDRESS, 0))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            let ports = NameServer {
                udp: udp.local_addr()?.port(),
                tcp: tcp.local_addr()?.port(),
            };
            Ok(Self { udp, tcp, ports })
        };
        open().map_err(Error::NameServer)
    }

    pub(in crate::network) fn ports(&self) -> NameServer {
        self.ports
    }
}
