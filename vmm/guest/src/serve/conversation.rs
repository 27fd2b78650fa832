//! One connection that carries frames.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;

use super::poll::has_hung_up;
use crate::frame::{self, Error, Incoming, Progress};
use crate::protocol::{Failure, ProcessId, Reply, Request};

/// Somebody who asks.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: File,
    incoming: Incoming,
    /// An answer the connection had no room for. No more is heard meanwhile, so there is one at most.
    outgoing: Vec<u8>,
    sent: usize,
    /// Whose end is awaited.
    waits: Option<ProcessId>,
    /// The other side has said its last, and was there when it did.
    silent: bool,
    over: bool,
}

impl Conversation {
    pub(super) fn new(socket: File) -> Conversation {
        Conversation {
            socket,
            incoming: Incoming::default(),
            outgoing: Vec::new(),
            sent: 0,
            waits: None,
            silent: false,
            over: false,
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn interest(&self) -> PollFlags {
        if !self.outgoing.is_empty() {
            PollFlags::OUT
        } else if self.waits.is_none() {
            PollFlags::IN
        } else if self.silent {
            PollFlags::empty()
        } else {
            // The next question stays where it is; that there will be none is to be known.
            PollFlags::RDHUP
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn waits_for(&self) -> Option<ProcessId> {
        self.waits
    }

    pub(super) fn wait_for(&mut self, process: ProcessId) {
        self.waits = Some(process);
    }

    /// The next request, if the last answer is away and a whole one is there.
    pub(super) fn next(&mut self) -> Option<Request> {
        self.flush();
        if self.over || !self.outgoing.is_empty() {
            return None;
        }
        if self.waits.is_some() {
            match has_hung_up(self.socket.as_fd()) {
                Some(true) => self.over = true,
                Some(false) => self.silent = true,
                None => {}
            }
            return None;
        }
        match self.incoming.advance(&mut self.socket) {
            Ok(Progress::Partial) => None,
            Ok(Progress::Frame(body)) => match serde_json::from_slice(&body) {
                Ok(request) => Some(request),
                Err(e) => {
                    // A newer host says things this guest does not know: told, and told whose fault it is.
                    self.fail(&Error::Malformed(e));
                    None
                }
            },
            Err(Error::Io(e)) if would_wait(&e) => None,
            Err(e @ Error::TooLong { .. }) => {
                self.fail(&e);
                None
            }
            Ok(Progress::Ended) | Err(_) => {
                self.over = true;
                None
            }
        }
    }

    /// The connection ends with this word, as far as there is room for it.
    fn fail(&mut self, e: &Error) {
        self.say(&Reply::Failed(Failure::Other { why: e.to_string() }));
        self.flush();
        self.over = true;
    }

    /// Takes an answer for [`Conversation::flush`] to send.
    pub(super) fn say(&mut self, reply: &Reply) {
        self.waits = None;
        match frame::encode(reply) {
            Ok(frame) => self.outgoing = frame,
            // Statistics are the longest, and bounded by the kernel; then there is nothing to say.
            Err(_) => self.over = true,
        }
    }

    /// Sends what there is room for.
    pub(super) fn flush(&mut self) {
        while self.sent < self.outgoing.len() {
            match self.socket.write(&self.outgoing[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if would_wait(&e) => return,
                Err(_) => {
                    self.over = true;
                    break;
                }
            }
        }
        self.outgoing.clear();
        self.sent = 0;
    }

    /// Ends the conversation with this answer and gives the connection away, if the answer has gone.
    pub(super) fn into_stream(mut self, reply: &Reply) -> Option<File> {
        self.say(reply);
        self.flush();
        // Nothing was under way: there is room for this one short frame, or the connection is broken.
        (self.outgoing.is_empty() && !self.over).then_some(self.socket)
    }
}

fn would_wait(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
