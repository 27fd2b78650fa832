//! The name server inside each container's network namespace, at 127.0.0.11.
//!
//! ```text
//! container ─► 127.0.0.11:53 ─ nft, in its namespace ─► our sockets there ─┬─ a neighbour's name: files under STATE
//!                                                                          └─ any other: the host's resolvers, from
//!                                                                             the host's namespace
//! ```
//!
//! It is part of the container's shim: one thread, never blocking, nothing kept that is on disk. What is bounded: questions
//! under way ([`EXCHANGES_MAX`]), TCP connections ([`CLIENTS_MAX`]), the time of each.

mod exchange;
mod message;
mod redirect;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use self::exchange::{Exchange, Progress};
use self::message::{Code, Query, Refused};
use super::error::{Error, Result};
use super::model::{DnsOptions, Paths};
use super::record::Record;
use super::{lease, names};

/// Questions under way at once; who asks more is told to come back (SERVFAIL).
const EXCHANGES_MAX: usize = 64;
/// TCP connections at once.
const CLIENTS_MAX: usize = 16;
/// How long a TCP connection may stay silent.
const IDLE: Duration = Duration::from_secs(10);
/// The host, as every container on a network can call it.
const HOST: &str = "host.berth.internal";

const UDP: u64 = 0;
const TCP: u64 = 1;

/// Who asked.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Udp(SocketAddr),
    Tcp(u64),
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    deadline: Instant,
}

/// One container's name server: sockets inside its namespace, sockets to the resolvers in ours. Never blocks.
#[derive(Debug)]
pub struct Responder {
    paths: Paths,
    container: String,
    options: DnsOptions,
    epoll: OwnedFd,
    udp: UdpSocket,
    tcp: TcpListener,
    clients: BTreeMap<u64, Client>,
    exchanges: BTreeMap<u64, (Asker, Exchange)>,
    /// Names sockets to epoll; never used twice.
    next_token: u64,
}

impl Responder {
    /// Opens the sockets inside the namespace of an attached container and turns 127.0.0.11:53 there to them.
    ///
    /// # Errors
    /// [`Error::Netns`], also for a container that is not attached, and [`Error::Nft`].
    pub fn bind(paths: &Paths, container_id: &str, options: &DnsOptions) -> Result<Self> {
        let failed = |source| Error::Netns {
            operation: "serve names in",
            path: paths.netns(container_id),
            source,
        };
        let record =
            Record::load(paths, container_id)?.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let (udp, tcp) = redirect::open(&record.netns)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        for (fd, token) in [(udp.as_fd(), UDP), (tcp.as_fd(), TCP)] {
            watch(&epoll, fd, token, false).map_err(|errno| failed(errno.into()))?;
        }
        Ok(Self {
            paths: paths.clone(),
            container: container_id.to_owned(),
            options: options.clone(),
            epoll,
            udp,
            tcp,
            clients: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            next_token: TCP + 1,
        })
    }

    /// An epoll descriptor that is readable whenever [`Responder::ready`] has work; it stays the same for the
    /// responder's life, so it is registered once.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// When [`Responder::ready`] wants to be called even if nothing is readable; `None` while nothing is pending.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let exchanges = self.exchanges.values().map(|(_, exchange)| exchange.deadline);
        exchanges
            .chain(self.clients.values().map(|client| client.deadline))
            .min()
    }

    /// Does what can be done now without blocking. Call it when [`Responder::descriptor`] is readable and when
    /// [`Responder::deadline`] has passed.
    pub fn ready(&mut self, now: Instant) {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 32];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A failure here is EINTR; the descriptor stays readable and we are called again.
        let count = epoll::wait(&self.epoll, &mut events[..], Some(&at_once)).unwrap_or(0);
        for event in &events[..count] {
            match event.data.u64() {
                UDP => self.receive(now),
                TCP => self.accept(now),
                token if self.clients.contains_key(&token) => self.hear(token, now),
                token => self.advance(token, now),
            }
        }
        self.expire(now);
    }

    fn receive(&mut self, now: Instant) {
        let mut buffer = [0; 4096];
        // A bound, so that a container that floods us does not keep the shim from its other work.
        for _ in 0..EXCHANGES_MAX {
            let Ok((length, from)) = self.udp.recv_from(&mut buffer) else {
                return;
            };
            self.ask(&buffer[..length], Asker::Udp(from), now);
        }
    }

    fn accept(&mut self, now: Instant) {
        while let Ok((stream, _)) = self.tcp.accept() {
            if self.clients.len() >= CLIENTS_MAX || stream.set_nonblocking(true).is_err() {
                continue; // closed
            }
            let token = self.token();
            if watch(&self.epoll, stream.as_fd(), token, false).is_ok() {
                self.clients.insert(
                    token,
                    Client {
                        stream,
                        received: Vec::new(),
                        deadline: now + IDLE,
                    },
                );
            }
        }
    }

    fn hear(&mut self, token: u64, now: Instant) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        let ended = exchange::fill(&mut client.stream, &mut client.received).is_err();
        client.deadline = now + IDLE;
        while let Some(message) = self
            .clients
            .get_mut(&token)
            .and_then(|c| exchange::take_message(&mut c.received))
        {
            self.ask(&message, Asker::Tcp(token), now);
        }
        if ended {
            self.clients.remove(&token);
        }
    }

    fn advance(&mut self, token: u64, now: Instant) {
        let Some((asker, exchange)) = self.exchanges.get_mut(&token) else {
            return;
        };
        let asker = *asker;
        match exchange.step() {
            Progress::Waiting => {
                let (fd, write) = exchange.descriptor();
                let _ = epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), interest(write));
            }
            Progress::Answered(reply) => {
                self.exchanges.remove(&token);
                self.reply(asker, &reply);
            }
            Progress::Failed => self.fail_over(token, now),
        }
    }

    /// The next resolver, or the answer that none is of use.
    fn fail_over(&mut self, token: u64, now: Instant) {
        let Some((asker, exchange)) = self.exchanges.get_mut(&token) else {
            return;
        };
        if exchange.next(now) {
            let (fd, write) = exchange.descriptor();
            if watch(&self.epoll, fd, token, write).is_ok() {
                return;
            }
        }
        let (asker, failure) = (*asker, exchange.failure());
        self.exchanges.remove(&token);
        self.reply(asker, &failure);
    }

    fn expire(&mut self, now: Instant) {
        let late = |deadline: Instant| deadline <= now;
        let tokens: Vec<u64> = self
            .exchanges
            .iter()
            .filter(|(_, (_, e))| late(e.deadline))
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            self.fail_over(token, now);
        }
        self.clients.retain(|_, client| !late(client.deadline));
    }

    fn ask(&mut self, message: &[u8], asker: Asker, now: Instant) {
        let query = match message::query(message) {
            Ok(query) => query,
            Err(Refused::Silent) => return,
            Err(Refused::Malformed(id)) => return self.reply(asker, &message::malformed(id)),
        };
        // Read anew for each question: networks are connected and disconnected while the container runs.
        let record = Record::load(&self.paths, &self.container).ok().flatten();
        if let Some(answer) = record
            .as_ref()
            .and_then(|record| self.local(message, &query, record))
        {
            return self.reply(asker, &answer);
        }
        // On internal networks alone nothing leaves, not by names either.
        let may_leave = record.is_some_and(|record| record.primary().is_some());
        if may_leave && self.exchanges.len() < EXCHANGES_MAX {
            let is_tcp = matches!(asker, Asker::Tcp(_));
            if let Some(exchange) = Exchange::start(message, query.clone(), is_tcp, &self.servers(), now) {
                let token = self.token();
                let (fd, write) = exchange.descriptor();
                if watch(&self.epoll, fd, token, write).is_ok() {
                    self.exchanges.insert(token, (asker, exchange));
                    return;
                }
            }
        }
        self.reply(asker, &message::empty(message, &query, Code::ServFail));
    }

    /// The answer from what is attached here; `None` when the question is for others.
    fn local(&self, message: &[u8], query: &Query, record: &Record) -> Option<Vec<u8>> {
        if query.class != message::IN {
            return None;
        }
        if query.kind == message::PTR {
            let ip = message::reverse(&query.name)?;
            let name = record
                .endpoints
                .iter()
                .find_map(|e| lease::name_of(&self.paths, &e.network, ip))?;
            return Some(message::pointer(message, query, &name));
        }
        let mut addresses = Vec::new();
        if query.name == HOST {
            addresses.extend(record.endpoints.first().map(|endpoint| endpoint.gateway));
        } else {
            let name = names::normalize(&query.name)?;
            for endpoint in &record.endpoints {
                addresses.extend(names::lookup(&self.paths, &endpoint.network, &name));
            }
        }
        if addresses.is_empty() {
            return None;
        }
        addresses.sort_unstable();
        addresses.dedup();
        // The name is ours: types it has no record of have an empty answer, or a resolver would ask the world.
        Some(if query.kind == message::A {
            message::addresses(message, query, &addresses)
        } else {
            message::empty(message, query, Code::NoError)
        })
    }

    /// `--dns`, else what the host uses now.
    fn servers(&self) -> Vec<IpAddr> {
        if !self.options.servers.is_empty() {
            return self.options.servers.clone();
        }
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let servers = host
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"));
        // As many as the C library asks.
        servers
            .filter_map(|server| server.trim().parse().ok())
            .take(3)
            .collect()
    }

    /// An answer that cannot be sent is lost, as on any network: who asked asks again.
    fn reply(&mut self, asker: Asker, answer: &[u8]) {
        match asker {
            Asker::Udp(to) => drop(self.udp.send_to(answer, to)),
            Asker::Tcp(token) => {
                let Some(client) = self.clients.get_mut(&token) else {
                    return;
                };
                let framed = exchange::framed(answer);
                // Answers fit the socket's buffer; a client that lets it fill up is not listening.
                if !client
                    .stream
                    .write(&framed)
                    .is_ok_and(|length| length == framed.len())
                {
                    self.clients.remove(&token);
                }
            }
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

fn interest(write: bool) -> epoll::EventFlags {
    if write {
        epoll::EventFlags::IN | epoll::EventFlags::OUT
    } else {
        epoll::EventFlags::IN
    }
}

/// Closing the descriptor ends the watch.
fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: u64, write: bool) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(token), interest(write))
}
