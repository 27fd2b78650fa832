//! A container's connection to its name server. Several questions may be under way on it, and it may be half closed: who
//! has said all still hears all (RFC 7766 §6.2.3).

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::exchange::framed;

/// How long a connection may go without a whole question and without an answer. Longer than any answer takes.
const IDLE: Duration = Duration::from_secs(10);
/// The longest question. Real ones have a tenth of it.
pub(super) const QUESTION_MAX: usize = 4096;
/// Read at a time, so that questions come in portions and the shim gets to its other work between them.
const PORTION: usize = 1024;
/// Bytes of answers kept for a client that does not read them: one of the longest, and then some.
const UNSENT_MAX: usize = 128 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    /// The beginning of a question.
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// Questions without an answer yet.
    pub(super) pending: usize,
    has_said_all: bool,
    /// What epoll was told last.
    interest: EventFlags,
    /// When it is closed, whatever it does by then.
    pub(super) deadline: Instant,
}

impl Client {
    /// `socket` does not block.
    pub(super) fn new(socket: OwnedFd, now: Instant) -> Self {
        let stream = TcpStream::from(socket);
        // Answers are whole: none waits until the one before is acknowledged. Without it they are slower, no more.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            received: Vec::new(),
            unsent: Vec::new(),
            pending: 0,
            has_said_all: false,
            interest: EventFlags::IN,
            deadline: now + IDLE,
        }
    }

    /// The questions that became whole. A byte from time to time does not put the deadline off.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub(super) fn hear(&mut self, now: Instant) -> io::Result<Vec<Vec<u8>>> {
        let mut buffer = [0; PORTION];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.has_said_all = true,
            Ok(length) => self.received.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        let mut questions = Vec::new();
        let mut rest = &self.received[..];
        while let [high, low, more @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            // Neither has an answer, and what follows is not worth reading.
            if !(12..=QUESTION_MAX).contains(&length) {
                return Err(ErrorKind::InvalidData.into());
            }
            let Some((question, after)) = more.split_at_checked(length) else {
                break;
            };
            questions.push(question.to_vec());
            rest = after;
        }
        let taken = self.received.len() - rest.len();
        self.received.drain(..taken);
        if !questions.is_empty() {
            self.pending += questions.len();
            self.deadline = now + IDLE;
        }
        Ok(questions)
    }

    /// Takes the answer to one question.
    ///
    /// # Errors
    /// When the connection is broken, or the client lets answers pile up.
    pub(super) fn say(&mut self, answer: &[u8], now: Instant) -> io::Result<()> {
        self.pending = self.pending.saturating_sub(1);
        self.deadline = now + IDLE;
        self.unsent.extend_from_slice(&framed(answer));
        self.flush()?;
        if self.unsent.len() > UNSENT_MAX {
            return Err(ErrorKind::OutOfMemory.into());
        }
        Ok(())
    }

    /// Writes what the socket has room for.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Since when nothing is under way; none while there is a question or an answer, or a part of one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.pending == 0 && self.unsent.is_empty() && self.received.is_empty();
        is_idle.then(|| self.deadline.checked_sub(IDLE)).flatten()
    }

    /// Nothing is to be said on either side.
    pub(super) fn is_done(&self) -> bool {
        self.has_said_all && self.pending == 0 && self.unsent.is_empty()
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What to wait for, if that is not what was waited for so far. The end of a stream stays readable for ever and is
    /// not waited for again.
    pub(super) fn new_interest(&mut self) -> Option<EventFlags> {
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, !self.has_said_all);
        interest.set(EventFlags::OUT, !self.unsent.is_empty());
        (std::mem::replace(&mut self.interest, interest) != interest).then_some(interest)
    }
}
