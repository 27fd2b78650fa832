//! Who talks to the shim: a socket each, what it asked to see, and what it was told but had no room for.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::Shim;
use crate::shim::lifecycle::Running;
use crate::shim::protocol::{self, Reply};

/// Clients attached or waiting for an end at once; one more is told so.
const WAITERS_MAX: usize = 64;

/// Beyond those, clients that have asked for the end and wait for it. One more is obeyed, and not told of the end.
const STOPPERS_MAX: usize = 32;

/// Clients of neither kind. One more takes the place of the one that has been there longest, answered ones first: who only
/// wants to be heard is heard, however many wait or say nothing.
const ASKERS_MAX: usize = 32;

/// So long a client may take to say what it wants before its place is another's, who waits at the door meanwhile: on a busy host
/// many connect before the first has its turn to ask.
const TO_ASK: Duration = Duration::from_secs(1);

/// How long no client is taken in after the kernel had no descriptor or memory for one.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    /// Wants Exit: at the next end, or at the last only.
    pub(super) waits: Option<Wait>,
    /// It has said what it wants.
    pub(super) asked: bool,
    /// When it came.
    since: Instant,
    /// Packets its socket had no room for.
    pub(super) pending: VecDeque<Vec<u8>>,
    pub(super) gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Next,
    Last,
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Client {
        let pending = VecDeque::new();
        Client {
            socket,
            stdin: false,
            stdout: false,
            stderr: false,
            waits: None,
            asked: false,
            since: Instant::now(),
            pending,
            gone: false,
        }
    }

    /// Neither attached nor waiting for an end.
    fn asks(&self) -> bool {
        self.waits.is_none() && !self.gone
    }

    pub(super) fn say(&mut self, packet: &[u8]) {
        if self.gone {
            return;
        }
        if self.pending.is_empty() {
            match protocol::transmit(&self.socket, packet, SendFlags::DONTWAIT) {
                Ok(()) => return,
                Err(rustix::io::Errno::AGAIN) => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        self.pending.push_back(packet.to_vec());
    }

    pub(super) fn flush(&mut self) {
        while let Some(packet) = self.pending.front() {
            match protocol::transmit(&self.socket, packet, SendFlags::DONTWAIT) {
                Ok(()) => drop(self.pending.pop_front()),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.gone = true;
                    self.pending.clear();
                }
            }
        }
    }
}

impl Shim {
    /// Takes one client in; false when none waits at the door or none can be.
    pub(super) fn accept(&mut self) -> bool {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => self.clients.push(Client::new(socket)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return false,
            // No descriptor or memory for it: it stays in the queue, and the listener readable.
            Err(_) => {
                self.short_until = Some(Instant::now() + PAUSE);
                return false;
            }
        }
        true
    }

    /// What to wait for at the listener.
    pub(super) fn listening(&mut self) -> PollFlags {
        let now = Instant::now();
        self.short_until = self.short_until.filter(|until| *until > now);
        let crowded_until = self.crowded_until().filter(|until| *until > now);
        self.deaf_until = self.short_until.max(crowded_until);
        if self.deaf_until.is_none() {
            PollFlags::IN
        } else {
            PollFlags::empty()
        }
    }

    /// While there is no place but of clients that have not been given the time to ask: when that of the first is over.
    fn crowded_until(&self) -> Option<Instant> {
        let mut askers = self.clients.iter().filter(|c| c.asks());
        let first = askers.next()?;
        let crowded = !first.asked && askers.clone().all(|c| !c.asked) && askers.count() + 1 >= ASKERS_MAX;
        crowded.then(|| first.since + TO_ASK)
    }

    /// Makes room and takes one client in.
    pub(super) fn admit(&mut self) {
        if self.clients.iter().filter(|c| c.asks()).count() >= ASKERS_MAX {
            let answered = self.clients.iter().position(|c| c.asks() && c.asked);
            if let Some(i) = answered.or_else(|| self.clients.iter().position(Client::asks)) {
                let why = format!("{ASKERS_MAX} others ask at once");
                self.clients[i].say(&Reply::failed(why).encode());
                self.clients[i].gone = true;
            }
        }
        self.accept();
    }

    /// Lets a client wait, if it does not yet.
    pub(super) fn let_wait(&mut self, i: usize, wait: Wait) -> Result<(), String> {
        self.wait_among(i, wait, WAITERS_MAX)
            .ok_or_else(|| format!("{WAITERS_MAX} clients are attached or wait for its end already"))
    }

    /// Lets a client wait for the end it has asked for.
    pub(super) fn let_wait_for_stop(&mut self, i: usize) -> Result<(), String> {
        self.wait_among(i, Wait::Last, WAITERS_MAX + STOPPERS_MAX)
            .ok_or_else(|| "it is being stopped, and too many wait to be told of its end".to_owned())
    }

    fn wait_among(&mut self, i: usize, wait: Wait, most: usize) -> Option<()> {
        let waiting = self.clients.iter().filter(|c| c.waits.is_some()).count();
        let client = &mut self.clients[i];
        if client.waits.is_none() && waiting >= most {
            return None;
        }
        client.waits = Some(wait);
        Some(())
    }

    pub(super) fn reap_clients(&mut self, running: Option<&mut Running>) {
        let held_stdin = self.clients.iter().any(|c| c.gone && c.stdin);
        self.clients.retain(|c| !c.gone);
        if held_stdin
            && self.config.stdin_once
            && !self.config.tty
            && let Some(running) = running
        {
            self.input_ended = true;
            self.feed(running, &[]);
        }
    }

    /// Tells who waits for this end.
    pub(super) fn exited(&mut self, code: i32, kind: Wait) {
        let packet = Reply::Exit { code }.encode();
        for client in &mut self.clients {
            if client
                .waits
                .is_some_and(|w| w == Wait::Next || kind == Wait::Last)
            {
                client.say(&packet);
                client.waits = None;
            }
        }
    }
}
