//! virtio-vsock (virtio 1.2 §5.10): stream sockets between programs of the guest and of the host.
//!
//! ```text
//! guest ─ TX queue ─► packet.rs ─► connection.rs ─► a Unix socket ─► a program of the host's
//! guest ◄─ RX queue ◄─ ready connections, one packet each in turn ◄─ host.rs watches the sockets
//! ```
//!
//! Everything a guest can make us hold is bounded: connections, data of each, answers that wait for room in its RX queue.

mod connection;
mod host;
mod packet;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use virtio_queue::QueueT;
use vm_memory::GuestMemoryMmap;

use connection::{Connection, Next};
pub(crate) use host::Peers;
use host::{Event, Greeted, Host};
use packet::{DATA_MAX, HEADER_LEN, Header, Operation, STREAM};

use super::chain::{Chain, Malformed};
use super::device::{Active, Device};
use super::saved::Kept;
use crate::socket_file::SocketFile;

/// The host's address (vsock(7)).
const HOST_CID: u64 = 2;
/// Queues: to the guest, from the guest, and events.
const RX: usize = 0;
const TX: usize = 1;
const EVENTS: usize = 2;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, the one event there is: all connections are gone (virtio 1.2 §5.10.6.7).
const TRANSPORT_RESET: u32 = 0;
const QUEUE_SIZE: u16 = 256;
/// Connections at once. Firecracker has as many.
const CONNECTIONS_MAX: usize = 1023;
/// Answers to packets that belong to no connection; the oldest stay when there are more.
const STRAYS_MAX: usize = 256;
/// Looks at the host's sockets in one turn, of 64 events each.
const POLLS_MAX: usize = 16;
/// Ports of the host's side of connections it asks for, which programs do not choose.
const HOST_PORTS: u32 = 1 << 30;

/// A connection's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    host_port: u32,
    guest_port: u32,
}

/// The device.
pub(crate) struct Vsock {
    guest_cid: u64,
    config: [u8; 8],
    host: Host,
    connections: HashMap<Key, Connection>,
    /// By the numbers their sockets are watched with.
    watched: HashMap<u64, Key>,
    /// Connections with something to say, each once.
    ready: VecDeque<Key>,
    /// Who is to be told that there is no such connection.
    strays: VecDeque<Key>,
    next_port: u32,
    /// The host's sockets were not all looked at.
    again: bool,
    /// The guest is to be told that its connections are gone.
    cut: bool,
    /// It was told, and may not have heard: it would cut off what is new, too. So many more buffers for events were there.
    unheard: Option<u16>,
    /// Programs of the host's that asked for a port meanwhile.
    early: Vec<(UnixStream, u32)>,
    /// One packet's data.
    buffer: Vec<u8>,
}

impl Vsock {
    /// Listens on `path` as long as the second value is kept. Programs that listen for the guest are
    /// `peers`.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`: a socket that is there already.
    pub(crate) fn new(guest_cid: u32, path: &Path, peers: Peers) -> io::Result<(Vsock, SocketFile)> {
        let (host, file) = Host::listen(path, peers)?;
        let device = Vsock {
            guest_cid: guest_cid.into(),
            config: u64::from(guest_cid).to_le_bytes(),
            host,
            connections: HashMap::new(),
            watched: HashMap::new(),
            ready: VecDeque::new(),
            strays: VecDeque::new(),
            next_port: HOST_PORTS,
            again: false,
            cut: false,
            unheard: None,
            early: Vec::new(),
            buffer: vec![0; DATA_MAX],
        };
        Ok((device, file))
    }

    /// Takes one packet of the guest's.
    fn receive(&mut self, memory: &GuestMemoryMmap, mut chain: Chain) -> Result<(), Malformed> {
        let mut bytes = [0; HEADER_LEN];
        chain.read(memory, &mut bytes)?;
        let header = Header::decode(&bytes);
        let length = usize::try_from(header.length).expect("a 64-bit host");
        if length > DATA_MAX || length > chain.readable() {
            return Err(Malformed("a vsock packet is longer than its buffers"));
        }
        // Not for the host, or not from this guest (CVE-2019-18960 is what lengths did; addresses are as little believed).
        if header.destination_cid != HOST_CID || header.source_cid != self.guest_cid {
            return Ok(());
        }
        let key = Key {
            host_port: header.destination_port,
            guest_port: header.source_port,
        };
        if header.kind != STREAM {
            self.stray(key, header.operation);
            return Ok(());
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            match header.operation {
                Some(Operation::Request) => self.open(key, &header),
                operation => self.stray(key, operation),
            }
            return Ok(());
        };
        connection.hear(&header);
        match header.operation {
            Some(Operation::Response) => {
                if !connection.accept(&format!("OK {}\n", key.host_port)) {
                    connection.abort();
                }
            }
            Some(Operation::Data) => {
                let data = &mut self.buffer[..length];
                chain.read(memory, data)?;
                if !connection.deliver(data) {
                    connection.abort();
                }
            }
            Some(Operation::Shutdown) => connection.guest_ends(header.flags),
            Some(Operation::CreditUpdate) => {}
            Some(Operation::CreditRequest) => connection.want_credit(),
            Some(Operation::Reset) => {
                if !connection.forgotten() {
                    self.remove(key);
                    return Ok(());
                }
            }
            // A second request for what is there, and what nobody knows.
            Some(Operation::Request) | None => connection.abort(),
        }
        self.queue(key);
        Ok(())
    }

    /// The guest asks for a connection.
    fn open(&mut self, key: Key, request: &Header) {
        if self.connections.len() == CONNECTIONS_MAX {
            return self.stray(key, request.operation);
        }
        let Ok(stream) = self.host.connect(key.host_port) else {
            return self.stray(key, request.operation);
        };
        let connection = Connection::from_guest(stream, request);
        self.add(key, connection);
    }

    /// A program of the host's asks for one.
    fn open_from_host(&mut self, stream: UnixStream, guest_port: u32) {
        if self.connections.len() + self.early.len() >= CONNECTIONS_MAX {
            // It sees an end; there is no word for "full".
            return;
        }
        if self.cut || self.unheard.is_some() {
            self.early.push((stream, guest_port));
            return;
        }
        let key = loop {
            let host_port = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(HOST_PORTS);
            let key = Key {
                host_port,
                guest_port,
            };
            if !self.connections.contains_key(&key) {
                break key;
            }
        };
        self.add(key, Connection::from_host(stream));
    }

    fn add(&mut self, key: Key, connection: Connection) {
        match self.host.watch_connection(connection.stream()) {
            Ok(number) => {
                self.watched.insert(number, key);
                self.connections.insert(key, connection);
                self.queue(key);
            }
            Err(_) => self.stray(key, None),
        }
    }

    fn remove(&mut self, key: Key) {
        self.connections.remove(&key);
        self.watched.retain(|_, watched| *watched != key);
    }

    /// Somebody asked for, or spoke of, a connection that is none.
    fn stray(&mut self, key: Key, operation: Option<Operation>) {
        // Two that answer resets with resets never stop.
        if operation != Some(Operation::Reset) && self.strays.len() < STRAYS_MAX {
            self.strays.push_back(key);
        }
    }

    /// Puts a connection in line when it has something to say.
    fn queue(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(&key)
            && !connection.queued
            && connection.next().is_some()
        {
            connection.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Looks at the host's sockets. Whether there may be more to see: programs that never rest do not keep others waiting.
    fn poll(&mut self) -> bool {
        for _ in 0..POLLS_MAX {
            let events = self.host.events();
            if events.is_empty() {
                return false;
            }
            for event in events {
                match event {
                    Event::Arrival => self.host.arrivals(),
                    Event::Greeting(number) => {
                        if let Greeted::Wants(stream, port) = self.host.greeting(number) {
                            self.open_from_host(stream, port);
                        }
                    }
                    Event::Connection {
                        number,
                        readable,
                        hung_up,
                    } => self.woken(number, readable, hung_up),
                }
            }
        }
        true
    }

    fn woken(&mut self, number: u64, readable: bool, hung_up: bool) {
        let Some(key) = self.watched.get(&number).copied() else {
            return;
        };
        let connection = self.connections.get_mut(&key).expect("what is watched is there");
        connection.woken(readable, hung_up);
        if hung_up && connection.is_requested() {
            // The guest is told when it answers.
            self.remove(key);
            return;
        }
        self.queue(key);
    }

    /// Sends as much as the guest has room for, one packet of each connection in turn.
    fn fill(&mut self, active: &mut Active) -> Result<(), Malformed> {
        let mut left = QUEUE_SIZE;
        let mut sent = false;
        while !(self.strays.is_empty() && self.ready.is_empty()) {
            if left == 0 {
                active.ring(RX);
                break;
            }
            let Some(chain) = active.pop(RX)? else { break };
            let head = chain.head;
            match self.packet(&active.memory, chain)? {
                Some(length) => {
                    active.used(RX, head, length)?;
                    (left, sent) = (left - 1, true);
                }
                None => active.unpop(RX),
            }
        }
        if sent { active.tell(RX) } else { Ok(()) }
    }

    /// Puts the next packet into `chain`; its length, or `None` when who was next had nothing to say after all.
    fn packet(&mut self, memory: &GuestMemoryMmap, mut chain: Chain) -> Result<Option<usize>, Malformed> {
        if chain.writable() <= HEADER_LEN {
            return Err(Malformed("a vsock buffer has no room for data"));
        }
        if let Some(key) = self.strays.pop_front() {
            let header = self.header(key, Operation::Reset, 0, 0, (0, 0));
            chain.write(memory, &header.encode())?;
            return Ok(Some(HEADER_LEN));
        }
        let Some(key) = self.ready.pop_front() else {
            return Ok(None);
        };
        let Some(connection) = self.connections.get_mut(&key) else {
            return Ok(None);
        };
        connection.queued = false;
        let (operation, flags, length) = match connection.next() {
            None => return Ok(None),
            Some(Next::Control(operation, flags)) => {
                connection.told(operation);
                (operation, flags, 0)
            }
            Some(Next::Data(credit)) => {
                let most = credit.min(DATA_MAX).min(chain.writable() - HEADER_LEN);
                match connection.read(&mut self.buffer[..most]) {
                    Some(length) => (Operation::Data, 0, length),
                    None => {
                        self.queue(key);
                        return Ok(None);
                    }
                }
            }
        };
        let credit = connection.tell_credit();
        let header = self.header(key, operation, flags, length, credit);
        chain.write(memory, &header.encode())?;
        chain.write(memory, &self.buffer[..length])?;
        if operation == Operation::Reset {
            self.remove(key);
        } else {
            self.queue(key);
        }
        Ok(Some(HEADER_LEN + length))
    }

    /// Tells the guest that its connections are gone, once it has room for that.
    fn tell_reset(&mut self, active: &mut Active) -> Result<(), Malformed> {
        if !self.cut {
            return Ok(());
        }
        let there = Self::event_buffers(active)?;
        let Some(mut chain) = active.pop(EVENTS)? else {
            return Ok(());
        };
        let event = TRANSPORT_RESET.to_le_bytes();
        chain.write(&active.memory, &event)?;
        active.used(EVENTS, chain.head, event.len())?;
        (self.cut, self.unheard) = (false, Some(there.saturating_sub(1)));
        active.tell(EVENTS)
    }

    /// How many buffers there are for events. The driver is to say when it puts one behind the last, which it does when it has done what
    /// an event asks for.
    fn event_buffers(active: &mut Active) -> Result<u16, Malformed> {
        let mut there = 0;
        while active.queues[EVENTS].ready() {
            while active.pop(EVENTS)?.is_some() {
                there += 1;
            }
            if !active.listen(EVENTS)? {
                break;
            }
        }
        for _ in 0..there {
            active.unpop(EVENTS);
        }
        Ok(there)
    }

    /// Those who came too early, once the guest has heard.
    fn let_in(&mut self) {
        self.unheard = None;
        for (stream, port) in std::mem::take(&mut self.early) {
            self.open_from_host(stream, port);
        }
    }

    fn header(
        &self,
        key: Key,
        operation: Operation,
        flags: u32,
        length: usize,
        credit: (u32, u32),
    ) -> Header {
        Header {
            source_cid: HOST_CID,
            destination_cid: self.guest_cid,
            source_port: key.host_port,
            destination_port: key.guest_port,
            length: u32::try_from(length).expect("a packet"),
            kind: STREAM,
            operation: Some(operation),
            flags,
            buffer: credit.0,
            forwarded: credit.1,
        }
    }
}

impl Device for Vsock {
    fn kind(&self) -> u32 {
        virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; 3]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn sources(&self) -> Vec<RawFd> {
        vec![self.host.fd()]
    }

    fn started(&mut self, active: &mut Active) -> Result<(), Malformed> {
        // Before anything of a new connection, which may have the name of an old one.
        self.tell_reset(active)?;
        // Who came before is not announced again.
        self.ready(Some(active), 0)?;
        self.notified(active, TX)
    }

    fn notified(&mut self, active: &mut Active, queue: usize) -> Result<(), Malformed> {
        if queue == RX && std::mem::take(&mut self.again) {
            return self.ready(Some(active), 0);
        }
        if queue == EVENTS {
            let Some(others) = self.unheard else {
                return self.tell_reset(active);
            };
            if Self::event_buffers(active)? <= others {
                return Ok(());
            }
            self.let_in();
        }
        if queue == TX {
            active.drain(TX, |memory, chain| self.receive(memory, chain).map(|()| Some(0)))?;
        }
        self.fill(active)
    }

    fn ready(&mut self, active: Option<&mut Active>, _host: usize) -> Result<(), Malformed> {
        let Some(active) = active else { return Ok(()) };
        if self.poll() {
            self.again = true;
            active.ring(RX);
        }
        self.fill(active)
    }

    fn reset(&mut self) {
        // Programs of the host's see an end; those that have not said where to can still be served.
        self.connections.clear();
        self.watched.clear();
        self.ready.clear();
        self.strays.clear();
        self.early.clear();
        (self.cut, self.unheard) = (false, None);
    }

    fn save(&mut self) -> Result<Kept, &'static str> {
        Ok(Kept::Vsock {
            next_port: self.next_port,
        })
    }

    fn restore(&mut self, kept: Kept, driven: bool) -> Result<(), Malformed> {
        let Kept::Vsock { next_port } = kept else {
            return Err(Malformed("it was another kind of device"));
        };
        // The guest may hold connections on the ports before.
        self.next_port = next_port.max(HOST_PORTS);
        self.cut = driven;
        Ok(())
    }
}
