//! One question passed on to the host's resolvers, over UDP or TCP as it came, one resolver after the other.
//!
//! Each try has a socket of its own, so the kernel picks a fresh source port, connected, so that only the resolver asked
//! can answer; with a random id and the question compared that leaves a forger nothing cheap to guess.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::message::{self, Query};

/// How long one resolver has. Three of them fit into the five seconds most clients wait twice.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest message there is.
const MESSAGE_MAX: usize = 65_535;

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        unsent: Vec<u8>,
        received: Vec<u8>,
    },
}

/// A question on its way.
#[derive(Debug)]
pub(super) struct Exchange {
    query: Query,
    /// As sent, under an id of ours.
    message: Vec<u8>,
    id: u16,
    is_tcp: bool,
    socket: Socket,
    remaining: Vec<IpAddr>,
    /// When the next resolver gets its turn.
    pub(super) deadline: Instant,
}

/// What became of a step.
#[derive(Debug)]
pub(super) enum Progress {
    Waiting,
    /// The answer, under the id of who asked.
    Answered(Vec<u8>),
    /// This resolver is of no use.
    Failed,
}

impl Exchange {
    /// Sends the question to the first resolver that can be sent to; `None` when there is none.
    pub(super) fn start(
        message: &[u8],
        query: Query,
        is_tcp: bool,
        servers: &[IpAddr],
        now: Instant,
    ) -> Option<Self> {
        let mut remaining: Vec<IpAddr> = servers.iter().rev().copied().collect();
        let mut bytes = [0; 2];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
        let id = u16::from_ne_bytes(bytes);
        let mut message = message.to_vec();
        message.get_mut(..2)?.copy_from_slice(&id.to_be_bytes());
        let socket = first(&mut remaining, is_tcp, &message)?;
        Some(Self {
            query,
            message,
            id,
            is_tcp,
            socket,
            remaining,
            deadline: now + PATIENCE,
        })
    }

    /// Turns to the next resolver; whether there was one. The descriptor is another one then.
    pub(super) fn next(&mut self, now: Instant) -> bool {
        match first(&mut self.remaining, self.is_tcp, &self.message) {
            Some(socket) => {
                self.socket = socket;
                self.deadline = now + PATIENCE;
                true
            }
            None => false,
        }
    }

    /// What to wait on: readable, and writable while something is to be sent.
    pub(super) fn descriptor(&self) -> (BorrowedFd<'_>, bool) {
        match &self.socket {
            Socket::Udp(socket) => (socket.as_fd(), false),
            Socket::Tcp { stream, unsent, .. } => (stream.as_fd(), !unsent.is_empty()),
        }
    }

    /// The query, to answer it when every resolver failed.
    pub(super) fn failure(&self) -> Vec<u8> {
        message::empty(&self.message, &self.query, message::Code::ServFail)
    }

    /// Does what can be done now.
    pub(super) fn step(&mut self) -> Progress {
        let (id, query, message) = (self.id, &self.query, &self.message);
        let accept = |reply: &[u8]| {
            message::is_reply_to(reply, query, message, id).then(|| {
                let mut reply = reply.to_vec();
                reply[..2].copy_from_slice(&query.id.to_be_bytes());
                reply
            })
        };
        match &mut self.socket {
            Socket::Udp(socket) => {
                let mut buffer = [0; 4096];
                loop {
                    match socket.recv(&mut buffer) {
                        // A forged or late answer is passed over; the right one may still come.
                        Ok(length) => {
                            if let Some(reply) = accept(&buffer[..length]) {
                                return Progress::Answered(reply);
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waiting,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        // Refused: nobody listens there.
                        Err(_) => return Progress::Failed,
                    }
                }
            }
            Socket::Tcp {
                stream,
                unsent,
                received,
            } => match converse(stream, unsent, received) {
                Ok(Some(reply)) => accept(&reply).map_or(Progress::Failed, Progress::Answered),
                Ok(None) => Progress::Waiting,
                Err(_) => Progress::Failed,
            },
        }
    }
}

/// Writes what is unsent, reads what came; the message once it is whole.
fn converse(
    stream: &mut TcpStream,
    unsent: &mut Vec<u8>,
    received: &mut Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    while !unsent.is_empty() {
        match stream.write(unsent) {
            Ok(length) => drop(unsent.drain(..length)),
            // Full, or still connecting.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    fill(stream, received)?;
    Ok(take_message(received))
}

/// Reads until nothing more is there; the end of the stream is an error, for it comes too early.
pub(super) fn fill(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while received.len() <= MESSAGE_MAX + 2 {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The first message of a TCP stream (RFC 1035 §4.2.2), taken out once it is whole.
pub(super) fn take_message(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*received.first()?, *received.get(1)?]));
    let message = received.get(2..2 + length)?.to_vec();
    received.drain(..2 + length);
    Some(message)
}

/// A message as it stands in a TCP stream.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), &message[..usize::from(length)]].concat()
}

fn first(remaining: &mut Vec<IpAddr>, is_tcp: bool, message: &[u8]) -> Option<Socket> {
    while let Some(server) = remaining.pop() {
        if let Ok(socket) = send(SocketAddr::new(server, 53), is_tcp, message) {
            return Some(socket);
        }
    }
    None
}

fn send(server: SocketAddr, is_tcp: bool, message: &[u8]) -> io::Result<Socket> {
    let family = if server.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let kind = if is_tcp {
        SocketType::STREAM
    } else {
        SocketType::DGRAM
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(family, kind, flags, None)?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    if is_tcp {
        return Ok(Socket::Tcp {
            stream: socket.into(),
            unsent: framed(message),
            received: Vec::new(),
        });
    }
    let socket = UdpSocket::from(socket);
    socket.send(message)?;
    Ok(Socket::Udp(socket))
}
