//! A blocking netlink connection: several requests in one send, their answers matched by sequence number.

mod attributes;

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::{Socket, SocketAddr, protocols};

pub use attributes::Buffer;

/// Offset of the sequence number in `struct nlmsghdr`.
const SEQ_AT: usize = 8;
const HEADER_LEN: usize = 16;

/// One netlink socket. It stays in the network namespace it was opened in, whichever namespace the thread visits later.
pub struct Connection {
    socket: Socket,
    sequence: u32,
}

/// Which part of the kernel is spoken to; `netlink(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// Links, addresses, routes: `rtnetlink(7)`.
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

/// An answer to one request.
#[derive(Debug)]
pub enum Answer<'a> {
    /// Acknowledged, or refused.
    Ack {
        /// The request's number.
        sequence: u32,
        /// Zero when acknowledged.
        errno: i32,
    },
    /// A message of payload.
    Message {
        /// What follows the header.
        body: &'a [u8],
    },
}

impl Connection {
    /// Opens in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// The errno of the step that failed.
    pub fn open(subsystem: Subsystem) -> io::Result<Self> {
        let mut socket = Socket::new(match subsystem {
            Subsystem::Route => protocols::NETLINK_ROUTE,
            Subsystem::Netfilter => protocols::NETLINK_NETFILTER,
        })?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Refusals repeat the request unless capped; we know what we sent.
        socket.set_cap_ack(true)?;
        // A kernel that never answers must become an error, not a hang.
        let fd = rustix::fd::AsFd::as_fd(&socket);
        rustix::net::sockopt::set_socket_timeout(
            fd,
            rustix::net::sockopt::Timeout::Recv,
            Some(std::time::Duration::from_secs(10)),
        )?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The number for one more request.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends `messages` in one go and reads answers until `done` says so. `done` sees every answer.
    ///
    /// # Errors
    ///
    /// The errno of the socket, `EAGAIN` when the kernel says nothing for ten seconds; `InvalidData` for an answer cut short.
    pub fn exchange(&mut self, messages: &[u8], mut done: impl FnMut(Answer<'_>) -> bool) -> io::Result<()> {
        self.socket.send(messages, 0)?;
        let mut buffer = vec![0_u8; 16 * 1024];
        loop {
            let length = match self.socket.recv(&mut &mut buffer[..], 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while rest.len() >= HEADER_LEN {
                let size = word(rest, 0) as usize;
                if size < HEADER_LEN || size > rest.len() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "truncated netlink message",
                    ));
                }
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let body = &rest[HEADER_LEN..size];
                let answer = if i32::from(kind) == libc::NLMSG_ERROR && body.len() >= 4 {
                    let errno = i32::from_ne_bytes([body[0], body[1], body[2], body[3]]).saturating_neg();
                    Answer::Ack {
                        sequence: word(rest, SEQ_AT),
                        errno,
                    }
                } else {
                    Answer::Message { body }
                };
                if done(answer) {
                    return Ok(());
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.socket.as_raw_fd())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}
