//! The name server of each container, at 127.0.0.11 in its network namespace, or of a microVM, at its gateway.
//!
//! ```text
//! container ─► 127.0.0.11:53 ─ nft, in its namespace ─► our sockets there ─┬─ a neighbour's name: files under STATE
//! microVM ─► gateway:53 ─ nft, on the host ─► our sockets on the host ─────┴─ any other: the host's resolvers, from
//!                                                                             the host's namespace
//! ```
//!
//! It is part of the container's shim: one thread, never blocking, nothing kept that is on disk. What is bounded: questions
//! under way ([`EXCHANGES_MAX`]), TCP connections ([`CLIENTS_MAX`]), what each of them may hold, the time of each.

mod client;
mod exchange;
mod message;
mod redirect;
mod sockets;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use self::client::{Client, QUESTION_MAX};
use self::exchange::{Exchange, Progress, Server};
use self::message::{Code, Query, Refused};
pub use self::sockets::Sockets;
pub(super) use self::sockets::{ADDRESS, PORT};
use super::error::{Error, Result};
use super::model::{DnsOptions, EndpointStatus, Paths};
use super::record::Record;
use super::resolv_conf::ResolvConf;
use super::{files, lease, names};

/// Questions under way at once; who asks more is told to come back (SERVFAIL). Each has a socket for each resolver asked,
/// and all of them together leave most of the usual 1024 descriptors to the shim.
const EXCHANGES_MAX: usize = 128;
/// TCP connections at once; more wait in the listen queue while each of them waits for an answer.
const CLIENTS_MAX: usize = 16;
/// Datagrams, and connections of who may not ask, taken in at a time: who floods us does not keep the shim from its other
/// work.
const ARRIVALS_MAX: usize = 64;
/// How long a connection may be idle before it has to make room for another. Who connects asks sooner.
const GRACE: Duration = Duration::from_secs(1);
/// How long no connection is taken in after the kernel had no descriptor or memory for one.
const PAUSE: Duration = Duration::from_secs(1);
/// The host, as every container on a network can call it.
const HOST: &str = "host.berth.internal";

const UDP: u64 = 0;
const TCP: u64 = 1;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Udp(SocketAddr),
    Tcp(u64),
}

/// One container's name server: sockets inside its namespace, sockets to the resolvers in ours. Never blocks.
#[derive(Debug)]
pub struct Responder {
    paths: Paths,
    container: String,
    options: DnsOptions,
    epoll: OwnedFd,
    sockets: Sockets,
    /// Who may ask, where others could; `None` in a namespace of the container's own.
    askers: Option<Vec<Ipv4Addr>>,
    /// Nothing is waited for at the listener, which stays readable.
    is_deaf: bool,
    /// No connection is taken in before.
    deaf_until: Instant,
    clients: BTreeMap<u64, Client>,
    exchanges: BTreeMap<u64, (Asker, Exchange)>,
    /// Names sockets to epoll; never used twice.
    next_token: u64,
}

impl Responder {
    /// Opens the sockets inside the namespace of an attached container and turns 127.0.0.11:53 there to them.
    ///
    /// # Errors
    /// [`Error::Netns`], also for a container that is not attached, [`Error::NameServer`] and [`Error::Nft`].
    pub fn bind(paths: &Paths, container_id: &str, options: &DnsOptions) -> Result<Self> {
        let record = Record::load(paths, container_id)?;
        let Some(netns) = record.as_ref().and_then(Record::namespace) else {
            return Err(Error::Netns {
                operation: "serve names in",
                path: paths.netns(container_id),
                source: std::io::ErrorKind::NotFound.into(),
            });
        };
        Self::new(paths, container_id, options, redirect::open(netns)?, None)
    }

    /// For a microVM, whose questions the host's rules lead to `sockets` ([`super::Attachment::name_server`]). Questions
    /// from other addresses than those of `endpoints` have no answer: every user of the host can call these sockets.
    ///
    /// # Errors
    /// [`Error::NameServer`].
    pub fn of_guest(
        paths: &Paths,
        container_id: &str,
        options: &DnsOptions,
        sockets: Sockets,
        endpoints: &[EndpointStatus],
    ) -> Result<Self> {
        let askers = endpoints.iter().map(|endpoint| endpoint.ip).collect();
        Self::new(paths, container_id, options, sockets, Some(askers))
    }

    fn new(
        paths: &Paths,
        container_id: &str,
        options: &DnsOptions,
        sockets: Sockets,
        askers: Option<Vec<Ipv4Addr>>,
    ) -> Result<Self> {
        let failed = |errno: Errno| Error::NameServer(errno.into());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        for (fd, token) in [(sockets.udp.as_fd(), UDP), (sockets.tcp.as_fd(), TCP)] {
            watch(&epoll, fd, token, EventFlags::IN).map_err(failed)?;
        }
        Ok(Self {
            paths: paths.clone(),
            container: container_id.to_owned(),
            options: options.clone(),
            epoll,
            sockets,
            askers,
            is_deaf: false,
            deaf_until: Instant::now(),
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
        let clients = self.clients.values().map(|client| client.deadline);
        let listening = self.room_at().filter(|_| self.is_deaf);
        exchanges.chain(clients).chain(listening).min()
    }

    /// Does what can be done now without blocking. Call it when [`Responder::descriptor`] is readable and when
    /// [`Responder::deadline`] has passed.
    pub fn ready(&mut self, now: Instant) {
        let mut events = [epoll::Event {
            flags: EventFlags::empty(),
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
                token if self.clients.contains_key(&token) => self.serve(token, event.flags, now),
                token => self.advance(token, now),
            }
        }
        self.expire(now);
        self.listen_again(now);
    }

    /// Is it somebody who may ask?
    fn hears(&self, from: SocketAddr) -> bool {
        let asks = |askers: &Vec<Ipv4Addr>| askers.iter().any(|asker| from.ip() == *asker);
        self.askers.as_ref().is_none_or(asks)
    }

    fn receive(&mut self, now: Instant) {
        let mut buffer = [0; QUESTION_MAX + 1];
        for _ in 0..ARRIVALS_MAX {
            let Ok((length, from)) = self.sockets.udp.recv_from(&mut buffer) else {
                return;
            };
            // What is longer came cut off.
            if length <= QUESTION_MAX && self.hears(from) {
                self.ask(&buffer[..length], Asker::Udp(from), now);
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut strangers = 0;
        while self.room_at().is_some_and(|at| at <= now) {
            match rustix::net::acceptfrom_with(&self.sockets.tcp, flags) {
                Ok((socket, from)) => {
                    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                    if !from.is_some_and(|from| self.hears(from)) {
                        strangers += 1;
                        if strangers == ARRIVALS_MAX {
                            return;
                        }
                        continue;
                    }
                    if self.clients.len() >= CLIENTS_MAX
                        && let Some((_, oldest)) = self.longest_idle()
                    {
                        self.close(oldest);
                    }
                    let token = self.token();
                    let client = Client::new(socket, now);
                    if watch(&self.epoll, client.descriptor(), token, EventFlags::IN).is_ok() {
                        self.clients.insert(token, client);
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // No descriptor or memory for it: the connection stays in the queue, and the listener readable.
                Err(_) => return self.listen_not_before(now + PAUSE),
            }
        }
        self.listen_not_before(now);
    }

    /// When the next connection may be taken in: now, or when one that is idle has been so for [`GRACE`] and makes room
    /// (RFC 7766 §6.2.3); none while each waits for an answer.
    fn room_at(&self) -> Option<Instant> {
        if self.clients.len() < CLIENTS_MAX {
            return Some(self.deaf_until);
        }
        let (since, _) = self.longest_idle()?;
        Some(self.deaf_until.max(since + GRACE))
    }

    /// The connection on which nothing happened for longest, and since when.
    fn longest_idle(&self) -> Option<(Instant, u64)> {
        let clients = self.clients.iter();
        clients
            .filter_map(|(token, client)| Some((client.idle_since()?, *token)))
            .min()
    }

    fn listen_not_before(&mut self, when: Instant) {
        (self.is_deaf, self.deaf_until) = (true, when);
        let data = epoll::EventData::new_u64(TCP);
        let _ = epoll::modify(&self.epoll, &self.sockets.tcp, data, EventFlags::empty());
    }

    fn listen_again(&mut self, now: Instant) {
        if self.is_deaf && self.room_at().is_some_and(|at| at <= now) {
            let data = epoll::EventData::new_u64(TCP);
            match epoll::modify(&self.epoll, &self.sockets.tcp, data, EventFlags::IN) {
                Ok(()) => self.is_deaf = false,
                Err(_) => self.deaf_until = now + PAUSE,
            }
        }
    }

    /// Something happened on a connection.
    fn serve(&mut self, token: u64, happened: EventFlags, now: Instant) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        // Closed both ways, whether asked for or not: nobody hears an answer.
        if happened.intersects(EventFlags::HUP | EventFlags::ERR) {
            return self.close(token);
        }
        let heard = client.flush().and_then(|()| {
            if happened.contains(EventFlags::IN) {
                client.hear(now)
            } else {
                Ok(Vec::new())
            }
        });
        let Ok(questions) = heard else {
            return self.close(token);
        };
        for question in questions {
            // One before may have been the end of it.
            if self.clients.contains_key(&token) {
                self.ask(&question, Asker::Tcp(token), now);
            }
        }
        self.settle(token);
    }

    /// Closes a connection that is done, or has epoll wait for what it needs now.
    fn settle(&mut self, token: u64) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        if client.is_done() {
            return self.close(token);
        }
        if let Some(interest) = client.new_interest() {
            let data = epoll::EventData::new_u64(token);
            if epoll::modify(&self.epoll, client.descriptor(), data, interest).is_err() {
                self.close(token);
            }
        }
    }

    fn close(&mut self, token: u64) {
        self.clients.remove(&token);
        self.exchanges.retain(|_, (asker, _)| *asker != Asker::Tcp(token));
    }

    fn advance(&mut self, token: u64, now: Instant) {
        let Some((asker, exchange)) = self.exchanges.get_mut(&token) else {
            return;
        };
        let asker = *asker;
        match exchange.step() {
            Progress::Waiting => {}
            Progress::Answered(reply) => {
                self.exchanges.remove(&token);
                self.reply(asker, &reply, now);
            }
            Progress::Failed => self.ask_next(token, now),
        }
    }

    /// The next resolver, or the answer that none is of use.
    fn ask_next(&mut self, token: u64, now: Instant) {
        let Some((asker, exchange)) = self.exchanges.get_mut(&token) else {
            return;
        };
        let (asker, epoll) = (*asker, &self.epoll);
        let ended = exchange.next(now, |fd, interest| watch(epoll, fd, token, interest).is_ok());
        if let Some(failure) = ended {
            self.exchanges.remove(&token);
            self.reply(asker, &failure, now);
        }
    }

    fn expire(&mut self, now: Instant) {
        let late = |deadline: Instant| deadline <= now;
        let exchanges = self.exchanges.iter().filter(|(_, (_, e))| late(e.deadline));
        for token in exchanges.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.ask_next(token, now);
        }
        let clients = self.clients.iter().filter(|(_, client)| late(client.deadline));
        for token in clients.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.close(token);
        }
    }

    fn ask(&mut self, message: &[u8], asker: Asker, now: Instant) {
        let query = match message::query(message) {
            Ok(query) => query,
            Err(Refused::Silent) => return self.ignore(asker),
            Err(Refused::Answer(answer)) => return self.reply(asker, &answer, now),
        };
        let is_tcp = matches!(asker, Asker::Tcp(_));
        // Read anew for each question: networks are connected and disconnected while the container runs.
        let record = Record::load(&self.paths, &self.container).ok().flatten();
        if let Some(answer) = record
            .as_ref()
            .and_then(|record| self.local(message, &query, record, query.room(is_tcp)))
        {
            return self.reply(asker, &answer, now);
        }
        // On internal networks alone nothing leaves, not by names either.
        let record = record.filter(|record| record.primary().is_some());
        let Some(record) = record.filter(|_| self.exchanges.len() < EXCHANGES_MAX) else {
            return self.reply(asker, &message::empty(message, &query, Code::ServFail), now);
        };
        let token = self.token();
        let exchange = Exchange::new(message, query, is_tcp, self.servers(&record), now);
        self.exchanges.insert(token, (asker, exchange));
        self.ask_next(token, now);
    }

    /// The answer from what is attached here; `None` when the question is for others.
    fn local(&self, message: &[u8], query: &Query, record: &Record, room: usize) -> Option<Vec<u8>> {
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
            addresses.extend(files::host_gateway(&record.endpoints));
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
            message::addresses(message, query, &addresses, room)
        } else {
            message::empty(message, query, Code::NoError)
        })
    }

    /// `--dns`, else what the host uses now. As docker has it, a loopback address of a flag is the container's own and one
    /// of the host's file the host's.
    fn servers(&self, record: &Record) -> Vec<Server> {
        if self.options.servers.is_empty() {
            let host = ResolvConf::of_host().unwrap_or_default().servers_or_local();
            return host
                .into_iter()
                .map(|address| Server { address, netns: None })
                .collect();
        }
        let asked_for = self.options.servers.iter();
        asked_for
            // A name server that asks itself never ends.
            .filter(|address| **address != ADDRESS)
            .filter_map(|address| {
                let netns = if address.is_loopback() {
                    // A microVM's own loopback cannot be called from here.
                    Some(record.namespace()?.to_owned())
                } else {
                    None
                };
                let address = SocketAddr::new(*address, PORT);
                Some(Server { address, netns })
            })
            .collect()
    }

    /// Nobody will answer this one.
    fn ignore(&mut self, asker: Asker) {
        if let Asker::Tcp(token) = asker {
            self.close(token);
        }
    }

    /// A datagram that cannot be sent is lost, as on any network: who asked asks again.
    fn reply(&mut self, asker: Asker, answer: &[u8], now: Instant) {
        match asker {
            Asker::Udp(to) => drop(self.sockets.udp.send_to(answer, to)),
            Asker::Tcp(token) => {
                let Some(client) = self.clients.get_mut(&token) else {
                    return;
                };
                match client.say(answer, now) {
                    Ok(()) => self.settle(token),
                    Err(_) => self.close(token),
                }
            }
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

/// Closing the descriptor ends the watch.
fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: u64, interest: EventFlags) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(token), interest)
}
