//! One connection between a stream socket of the guest and a Unix socket of the host.
//!
//! ```text
//! guest asks:  Requested by nobody, Established at once: the host's socket is connected first
//! host asks:   Requested ─ Response ─► Established
//! either ends: Shutdown says "no more" for one direction or both; Reset ends what is left
//! ```
//!
//! Both sides hold no more than they said they would (§5.10.6.3): the guest sends what fits into [`BUFFER`], and we read
//! from the host no more than the guest has room for.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::num::Wrapping;
use std::os::unix::net::UnixStream;

use super::packet::{Header, NO_RECEIVE, NO_SEND, Operation};

/// What we hold of a guest's data until the host's program reads it, in bytes.
pub(super) const BUFFER: u32 = 256 * 1024;

/// What a connection has to say to the guest next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A packet without data.
    Control(Operation, u32),
    /// At most so many bytes from the host's program.
    Data(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The host's program asked; the guest has not answered.
    Requested,
    Established,
}

/// A connection; see the module.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    phase: Phase,
    /// The guest's data that the host's program has not read.
    to_host: VecDeque<u8>,
    /// The host's program may have sent something.
    readable: bool,
    /// Both directions of the host's socket are closed.
    hung_up: bool,
    guest_sends: bool,
    /// The host's program has been told so.
    shut: bool,
    guest_receives: bool,
    /// What the guest has been told of `NO_SEND` and `NO_RECEIVE`.
    told_shutdown: u32,
    /// The host's program sends no more, or takes no more.
    host_ended: u32,
    request: bool,
    response: bool,
    reset: bool,
    credit_wanted: bool,
    /// Of the guest's data.
    forwarded: Wrapping<u32>,
    forwarded_told: Wrapping<u32>,
    guest_buffer: u32,
    guest_forwarded: Wrapping<u32>,
    sent: Wrapping<u32>,
    /// In line to send.
    pub(super) queued: bool,
}

impl Connection {
    fn new(stream: UnixStream, phase: Phase) -> Connection {
        Connection {
            stream,
            phase,
            to_host: VecDeque::new(),
            readable: true,
            hung_up: false,
            guest_sends: true,
            shut: false,
            guest_receives: true,
            told_shutdown: 0,
            host_ended: 0,
            request: phase == Phase::Requested,
            response: phase == Phase::Established,
            reset: false,
            credit_wanted: false,
            forwarded: Wrapping(0),
            forwarded_told: Wrapping(0),
            guest_buffer: 0,
            guest_forwarded: Wrapping(0),
            sent: Wrapping(0),
            queued: false,
        }
    }

    /// The host's program asked for it.
    pub(super) fn from_host(stream: UnixStream) -> Connection {
        Connection::new(stream, Phase::Requested)
    }

    /// The guest asked for it, and `stream` is connected.
    pub(super) fn from_guest(stream: UnixStream, request: &Header) -> Connection {
        let mut connection = Connection::new(stream, Phase::Established);
        connection.hear(request);
        connection
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether the guest has yet to accept.
    pub(super) fn is_requested(&self) -> bool {
        self.phase == Phase::Requested
    }

    /// Takes the credit that every header carries.
    pub(super) fn hear(&mut self, header: &Header) {
        self.guest_buffer = header.buffer;
        self.guest_forwarded = Wrapping(header.forwarded);
    }

    /// The guest accepted: the host's program reads `greeting` first. `false` when that was not asked for, or nobody
    /// listens any more.
    pub(super) fn accept(&mut self, greeting: &str) -> bool {
        if self.phase != Phase::Requested {
            return false;
        }
        self.phase = Phase::Established;
        // A fresh socket has room for a line.
        self.stream.write_all(greeting.as_bytes()).is_ok()
    }

    /// What to tell the guest next, if anything.
    pub(super) fn next(&self) -> Option<Next> {
        let shutdown = self.host_ended & !self.told_shutdown;
        let control = |operation| Some(Next::Control(operation, 0));
        if self.reset || self.is_finished() {
            control(Operation::Reset)
        } else if self.request {
            control(Operation::Request)
        } else if self.response {
            control(Operation::Response)
        } else if self.phase == Phase::Requested {
            None
        } else if self.wants_to_read() && self.credit() > 0 {
            Some(Next::Data(self.credit()))
        } else if shutdown != 0 {
            Some(Next::Control(Operation::Shutdown, self.host_ended))
        } else if self.credit_wanted {
            control(Operation::CreditUpdate)
        } else {
            None
        }
    }

    /// Both sides said all they had to, and it was delivered.
    fn is_finished(&self) -> bool {
        !self.guest_sends && !self.guest_receives && self.to_host.is_empty()
    }

    fn wants_to_read(&self) -> bool {
        self.readable && self.guest_receives && self.host_ended & NO_SEND == 0
    }

    /// How much more the guest has room for.
    fn credit(&self) -> usize {
        let in_flight = (self.sent - self.guest_forwarded).0;
        // A guest that takes back what it offered has no room.
        usize::try_from(self.guest_buffer.saturating_sub(in_flight)).expect("a 64-bit host")
    }

    /// Credit as a header tells it.
    pub(super) fn tell_credit(&mut self) -> (u32, u32) {
        self.credit_wanted = false;
        self.forwarded_told = self.forwarded;
        (BUFFER, self.forwarded.0)
    }

    /// A packet without data went to the guest.
    pub(super) fn told(&mut self, operation: Operation) {
        match operation {
            Operation::Request => self.request = false,
            Operation::Response => self.response = false,
            Operation::Shutdown => self.told_shutdown = self.host_ended,
            _ => {}
        }
    }

    /// Reads for the guest into `buffer`. `None` when there is nothing now, which is remembered.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let read = loop {
            match (&self.stream).read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => {
                self.readable = false;
                self.host_ended |= NO_SEND;
                if self.hung_up {
                    self.host_ended |= NO_RECEIVE;
                }
                None
            }
            Ok(count) => {
                self.sent += u32::try_from(count).expect("a packet");
                Some(count)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                None
            }
            Err(_) => {
                self.gone();
                None
            }
        }
    }

    /// Takes data of the guest's. `false` when it sends more than it has room for, or after it said that it would not.
    pub(super) fn deliver(&mut self, data: &[u8]) -> bool {
        let room = usize::try_from(BUFFER).expect("a 64-bit host") - self.to_host.len();
        if self.reset || self.phase != Phase::Established || !self.guest_sends || data.len() > room {
            return false;
        }
        self.to_host.extend(data);
        self.flush();
        true
    }

    /// Writes to the host's program what it takes now.
    pub(super) fn flush(&mut self) {
        while !self.to_host.is_empty() {
            let (front, _) = self.to_host.as_slices();
            match (&self.stream).write(front) {
                Ok(count) => self.forward(count),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // Nobody reads it any more; the guest need not wait for room.
                    self.forward(self.to_host.len());
                    self.gone();
                }
            }
        }
        // Once: each time wakes whoever watches the socket, and that is us.
        if !self.guest_sends && !self.shut {
            self.shut = true;
            // A socket that is gone has nothing to shut.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    fn forward(&mut self, count: usize) {
        self.to_host.drain(..count);
        self.forwarded += u32::try_from(count).expect("no more than the buffer");
        // Before the guest runs dry, and not for every byte.
        if (self.forwarded - self.forwarded_told).0 >= BUFFER / 4 {
            self.credit_wanted = true;
        }
    }

    fn gone(&mut self) {
        self.readable = false;
        self.host_ended = NO_SEND | NO_RECEIVE;
    }

    /// What the event loop saw of the host's socket.
    pub(super) fn woken(&mut self, readable: bool, hung_up: bool) {
        self.readable |= readable || hung_up;
        if hung_up {
            self.hung_up = true;
            if self.host_ended & NO_SEND != 0 {
                self.host_ended |= NO_RECEIVE;
            }
        }
        self.flush();
    }

    /// The guest sends or receives no more.
    pub(super) fn guest_ends(&mut self, flags: u32) {
        self.guest_sends &= flags & NO_SEND == 0;
        self.guest_receives &= flags & NO_RECEIVE == 0;
        self.flush();
    }

    /// The guest wants to know how much room there is.
    pub(super) fn want_credit(&mut self) {
        self.credit_wanted = true;
    }

    /// The guest broke the rules of this connection: it is told, and the host's program sees an end.
    pub(super) fn abort(&mut self) {
        self.reset = true;
    }

    /// The guest forgot the connection. Whether something is left to do: data it sent before it ended.
    pub(super) fn forgotten(&mut self) -> bool {
        if self.guest_sends {
            return false;
        }
        self.guest_receives = false;
        !self.to_host.is_empty()
    }
}
