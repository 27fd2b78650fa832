//! One question passed on to the host's resolvers, over UDP or TCP as it came.
//!
//! ```text
//! a turn each BUDGET / turns:   first ─► second ─► third ─► (UDP alone) first again ─► second again ─► third again ─► end
//! a refusal or an error:        the next turn at once, while there is somebody not asked yet
//! ```
//!
//! Who was asked may answer until the end. Each resolver has a socket of its own, so the kernel picks a fresh source port,
//! connected, so that only the resolver asked can answer; with a random id and the question compared that leaves a forger
//! nothing cheap to guess.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::super::netns::Visit;
use super::message::{self, MESSAGE_MAX, Query};

/// How long an answer may take, whatever it is. The C library asks again after five seconds (`timeout` of resolv.conf(5)),
/// by when it should have heard.
const BUDGET: Duration = Duration::from_secs(4);
/// As many resolvers as the C library asks.
pub(super) const SERVERS_MAX: usize = 3;
/// Datagrams looked at in one step: a resolver that floods us does not keep the shim from its other work.
const DATAGRAMS_MAX: usize = 16;

#[derive(Debug)]
enum Socket {
    Udp {
        socket: UdpSocket,
        is_repeated: bool,
    },
    Tcp {
        stream: TcpStream,
        unsent: Vec<u8>,
        received: Vec<u8>,
    },
}

/// A resolver that was asked.
#[derive(Debug)]
struct Asked {
    /// The id it was asked under.
    id: u16,
    socket: Socket,
}

/// A resolver to ask.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// The network namespace it is asked from, if that is not ours.
    pub(super) netns: Option<PathBuf>,
}

/// A question on its way.
#[derive(Debug)]
pub(super) struct Exchange {
    query: Query,
    /// As it came.
    message: Vec<u8>,
    is_tcp: bool,
    /// Not asked yet; the last one is next.
    remaining: Vec<Server>,
    /// Asked, and may still answer.
    asked: Vec<Asked>,
    /// What the first to answer had to say, if that is not of use.
    refusal: Option<Vec<u8>>,
    /// Length of a turn.
    turn: Duration,
    end: Instant,
    /// When [`Exchange::next`] wants to be called.
    pub(super) deadline: Instant,
}

/// What became of a step.
#[derive(Debug)]
pub(super) enum Progress {
    Waiting,
    /// The answer, under the id of who asked and as long as who asked takes.
    Answered(Vec<u8>),
    /// It is somebody else's turn.
    Failed,
}

impl Exchange {
    /// Nobody is asked before the first [`Exchange::next`]. `message` is the whole query.
    pub(super) fn new(
        message: &[u8],
        query: Query,
        is_tcp: bool,
        mut servers: Vec<Server>,
        now: Instant,
    ) -> Self {
        servers.truncate(SERVERS_MAX);
        servers.reverse();
        // A lost segment is sent again by the kernel, a lost datagram by us.
        let turns = servers.len() * if is_tcp { 1 } else { 2 };
        let turns = u32::try_from(turns).unwrap_or(u32::MAX).max(1);
        Self {
            query,
            message: message.to_vec(),
            is_tcp,
            remaining: servers,
            asked: Vec::new(),
            refusal: None,
            turn: BUDGET / turns,
            end: now + BUDGET,
            deadline: now,
        }
    }

    /// Asks whoever's turn it is, and has `watch` look after a socket that is new. The answer to give when it is nobody's.
    pub(super) fn next(
        &mut self,
        now: Instant,
        watch: impl Fn(BorrowedFd<'_>, EventFlags) -> bool,
    ) -> Option<Vec<u8>> {
        self.deadline = self.end.min(now + self.turn);
        while now < self.end
            && let Some(server) = self.remaining.pop()
        {
            let Ok(asked) = send(&server, self.is_tcp, &self.message) else {
                continue;
            };
            let (fd, interest) = asked.interest();
            if watch(fd, interest) {
                self.asked.push(asked);
                return None;
            }
        }
        if now < self.end {
            self.repeat();
        }
        (self.asked.is_empty() || now >= self.end).then(|| self.failure())
    }

    /// Sends the datagram again to the first resolver that got it only once; to none, and the rest is waiting.
    fn repeat(&mut self) {
        let message = &self.message;
        while let Some(at) = self.asked.iter().position(Asked::may_be_repeated) {
            if self.asked[at].repeat(message).is_ok() {
                return;
            }
            self.asked.remove(at);
        }
        self.deadline = self.end;
    }

    /// The answer when no resolver was of use: what one of them said, or that all failed.
    fn failure(&mut self) -> Vec<u8> {
        match self.refusal.take() {
            Some(refusal) => message::fit(refusal, &self.query, self.query.room(self.is_tcp)),
            None => message::empty(&self.message, &self.query, message::Code::ServFail),
        }
    }

    /// Does what can be done now.
    pub(super) fn step(&mut self) -> Progress {
        let (query, message) = (&self.query, &self.message);
        let before = self.asked.len();
        let mut answer = None;
        let refusal = &mut self.refusal;
        self.asked.retain_mut(|asked| {
            if answer.is_some() {
                return true;
            }
            match asked.step(query, message) {
                Ok(None) => return true,
                Err(_) => {}
                Ok(Some(mut reply)) => {
                    reply[..2].copy_from_slice(&query.id.to_be_bytes());
                    if message::is_refusal(&reply) {
                        refusal.get_or_insert(reply);
                    } else {
                        answer = Some(reply);
                    }
                }
            }
            false
        });
        if let Some(answer) = answer {
            return Progress::Answered(message::fit(answer, query, query.room(self.is_tcp)));
        }
        if self.asked.len() < before && (self.asked.is_empty() || !self.remaining.is_empty()) {
            return Progress::Failed;
        }
        Progress::Waiting
    }
}

impl Asked {
    fn may_be_repeated(&self) -> bool {
        matches!(
            self.socket,
            Socket::Udp {
                is_repeated: false,
                ..
            }
        )
    }

    /// From the same port and under the same id, so that the answer to either will do.
    fn repeat(&mut self, message: &[u8]) -> io::Result<()> {
        if let Socket::Udp { socket, is_repeated } = &mut self.socket {
            *is_repeated = true;
            socket.send(&under(self.id, message))?;
        }
        Ok(())
    }

    /// What to wait for. Of a stream each change once: what is left to write or read is known from the last time.
    fn interest(&self) -> (BorrowedFd<'_>, EventFlags) {
        match &self.socket {
            Socket::Udp { socket, .. } => (socket.as_fd(), EventFlags::IN),
            Socket::Tcp { stream, .. } => (stream.as_fd(), EventFlags::IN | EventFlags::OUT | EventFlags::ET),
        }
    }

    /// The reply, once it is there; an error when this resolver will not give one.
    fn step(&mut self, query: &Query, message: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let id = self.id;
        let is_reply = |reply: &[u8]| message::is_reply_to(reply, query, message, id);
        match &mut self.socket {
            Socket::Udp { socket, .. } => {
                for _ in 0..DATAGRAMS_MAX {
                    match datagram(socket) {
                        Ok(reply) if is_reply(&reply) => return Ok(Some(reply)),
                        // A forged or late answer is passed over; the right one may still come.
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        // Refused: nobody listens there.
                        Err(error) => return Err(error),
                    }
                }
                Ok(None)
            }
            Socket::Tcp {
                stream,
                unsent,
                received,
            } => match converse(stream, unsent, received)? {
                Some(reply) if is_reply(&reply) => Ok(Some(reply)),
                Some(_) => Err(ErrorKind::InvalidData.into()),
                None => Ok(None),
            },
        }
    }
}

/// The next datagram, whatever its size: its length is asked for first, so that no buffer of the largest is kept.
fn datagram(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let (_, length) = rustix::net::recv(socket, &mut [0_u8; 0], RecvFlags::PEEK | RecvFlags::TRUNC)?;
    let mut reply = vec![0; length];
    let length = socket.recv(&mut reply)?;
    reply.truncate(length);
    Ok(reply)
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
    let mut buffer = [0; 4096];
    while received.len() < 2 + MESSAGE_MAX {
        match stream.read(&mut buffer) {
            // It may have closed after the message.
            Ok(0) => {
                return take_message(received)
                    .map(Some)
                    .ok_or_else(|| ErrorKind::UnexpectedEof.into());
            }
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(take_message(received))
}

/// The first message of a TCP stream (RFC 1035 §4.2.2), taken out once it is whole.
fn take_message(received: &mut Vec<u8>) -> Option<Vec<u8>> {
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

/// The query under another id.
fn under(id: u16, message: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), message.get(2..).unwrap_or_default()].concat()
}

fn send(server: &Server, is_tcp: bool, message: &[u8]) -> io::Result<Asked> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let id = u16::from_ne_bytes(bytes);
    let message = under(id, message);
    let family = if server.address.is_ipv4() {
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
    let socket: OwnedFd = {
        // A socket stays in the namespace it was made in.
        let visit = server.netns.as_deref().map(Visit::enter).transpose();
        let _visit = visit.map_err(io::Error::other)?;
        rustix::net::socket_with(family, kind, flags, None)?
    };
    match rustix::net::connect(&socket, &server.address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let socket = if is_tcp {
        Socket::Tcp {
            stream: socket.into(),
            unsent: framed(&message),
            received: Vec::new(),
        }
    } else {
        let socket = UdpSocket::from(socket);
        socket.send(&message)?;
        Socket::Udp {
            socket,
            is_repeated: false,
        }
    };
    Ok(Asked { id, socket })
}
