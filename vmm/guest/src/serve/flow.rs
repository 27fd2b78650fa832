//! One standard stream: our end of a pipe or terminal, the connection attached to it, and what is between the two.
//!
//! ```text
//! process ──► end ──► out (≤ 64 KiB) ──► peer          no more is read from one side than the other has taken
//! process ◄── end ◄── input (≤ 64 KiB) ◄── peer
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;

use super::process::Processes;
use crate::protocol::{ProcessId, Stream};

/// Bytes held each way.
const HELD_MAX: usize = 64 << 10;
/// More than a terminal holds: 64 KiB of buffers and 4 KiB of its line discipline.
const TERMINAL_BYTES_MAX: usize = 128 << 10;

/// A stream of a process, attached or not.
#[derive(Debug)]
pub(super) struct Flow {
    process: ProcessId,
    stream: Stream,
    end: File,
    peer: Option<File>,
    /// The connection sends no more, and was there when it said so.
    peer_silent: bool,
    /// From the process to the host.
    out: Half,
    /// From the host to the process.
    input: Half,
    /// Ends with the first connection, instead of waiting for the next.
    fleeting: bool,
    attached: bool,
    /// Set once the process has ended: so much may still be what it wrote. Others may hold the stream open and write for
    /// ever.
    left: Option<usize>,
}

/// What came from one side and has not gone to the other.
#[derive(Debug, Default)]
struct Half {
    bytes: Vec<u8>,
    gone: usize,
    /// Nothing more comes.
    ended: bool,
}

impl Half {
    fn is_empty(&self) -> bool {
        self.gone == self.bytes.len()
    }

    fn is_done(&self) -> bool {
        self.ended && self.is_empty()
    }

    /// Reads once; how many bytes came. 0 is the end.
    fn fill(&mut self, from: &mut File) -> io::Result<usize> {
        self.bytes.resize(HELD_MAX, 0);
        self.gone = 0;
        let read = from.read(&mut self.bytes);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        read
    }

    /// Writes what it can.
    fn drain(&mut self, to: &mut File) -> io::Result<()> {
        while !self.is_empty() {
            self.gone += to.write(&self.bytes[self.gone..])?;
        }
        // An idle stream holds no memory.
        self.bytes = Vec::new();
        self.gone = 0;
        Ok(())
    }

    /// Nothing more comes, and what is here goes nowhere.
    fn drop_all(&mut self) {
        *self = Half {
            ended: true,
            ..Half::default()
        };
    }
}

impl Flow {
    pub(super) fn new(process: ProcessId, stream: Stream, end: OwnedFd) -> Flow {
        let mut flow = Flow {
            process,
            stream,
            end: File::from(end),
            peer: None,
            peer_silent: false,
            out: Half::default(),
            input: Half::default(),
            fleeting: false,
            attached: false,
            left: None,
        };
        flow.out.ended = stream == Stream::Stdin;
        flow.input.ended = matches!(stream, Stream::Stdout | Stream::Stderr);
        flow
    }

    /// One that is nobody's any more when its first connection is gone.
    pub(super) fn of_one_connection(process: ProcessId, stream: Stream, end: OwnedFd) -> Flow {
        Flow {
            fleeting: true,
            ..Flow::new(process, stream, end)
        }
    }

    pub(super) fn process(&self) -> ProcessId {
        self.process
    }

    pub(super) fn is(&self, process: ProcessId, stream: Stream) -> bool {
        self.process == process && self.stream == stream
    }

    /// The terminal's master.
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// Gives it to this connection, and takes it from the one that had it.
    pub(super) fn attach(&mut self, peer: File) {
        self.peer = Some(peer);
        self.attached = true;
        self.peer_silent = false;
        if self.stream == Stream::Terminal {
            // The one before may have ended its side.
            self.input.ended = false;
        }
    }

    /// What it left in its stream is still taken; then the stream ends.
    pub(super) fn process_ended(&mut self) {
        let held = rustix::pipe::fcntl_getpipe_size(&self.end).unwrap_or(TERMINAL_BYTES_MAX);
        self.left = Some(held);
        if self.stream == Stream::Stdin {
            self.input.drop_all();
        }
    }

    /// Whether there is nothing left to carry, or nobody left to ask for it.
    pub(super) fn is_over(&self, processes: &Processes) -> bool {
        let carried = match self.stream {
            Stream::Stdin => self.input.is_done(),
            _ => self.out.is_done(),
        };
        let left_alone = self.fleeting && self.attached && self.peer.is_none();
        carried || left_alone || (self.peer.is_none() && !processes.is_known(self.process))
    }

    /// What to wait for at our end, and at the connection.
    pub(super) fn interests(&self) -> (PollFlags, PollFlags) {
        let (mut end, mut peer) = (PollFlags::empty(), PollFlags::empty());
        if self.peer.is_none() {
            return (end, peer);
        }
        if !self.out.is_empty() {
            peer |= PollFlags::OUT;
        } else if !self.out.ended {
            end |= PollFlags::IN;
        }
        if !self.input.is_empty() {
            end |= PollFlags::OUT;
        } else if !self.input.ended {
            peer |= PollFlags::IN;
        } else if !self.peer_silent {
            // A host that leaves says so only this way while the process is silent. What it sends here is not read.
            peer |= PollFlags::RDHUP;
        }
        (end, peer)
    }

    pub(super) fn peer(&self) -> Option<BorrowedFd<'_>> {
        self.peer.as_ref().map(AsFd::as_fd)
    }

    /// Whether something waits to be read although poll(2) will not say so: the rest of a process that has ended.
    pub(super) fn is_due(&self) -> bool {
        self.peer.is_some() && self.left.is_some() && self.out.is_empty() && !self.out.ended
    }

    /// Carries what can be carried now, once each way.
    pub(super) fn pump(&mut self) {
        if self.peer.is_none() {
            return;
        }
        self.pump_out();
        self.pump_input();
    }

    fn pump_out(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        if self.out.is_empty() && !self.out.ended {
            match self.out.fill(&mut self.end) {
                Ok(0) => self.out.ended = true,
                Ok(read) => {
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(read);
                        self.out.ended = *left == 0;
                    }
                }
                Err(e) if would_wait(&e) => self.out.ended = self.left.is_some(),
                // EIO is a terminal's way of saying end.
                Err(_) => self.out.ended = true,
            }
        }
        match self.out.drain(peer) {
            Ok(()) => {}
            Err(e) if would_wait(&e) => {}
            Err(_) => self.peer = None,
        }
    }

    fn pump_input(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        if self.input.is_empty() && !self.input.ended {
            match self.input.fill(peer) {
                Ok(0) => self.input.ended = true,
                Ok(_) => {}
                Err(e) if would_wait(&e) => {}
                // Broken, which is no end: the host may come again, a restored guest's does.
                Err(_) => self.peer = None,
            }
        }
        if self.input.is_done() && !self.peer_silent {
            self.look_for_peer();
        }
        match self.input.drain(&mut self.end) {
            Ok(()) => {}
            Err(e) if would_wait(&e) => {}
            // The process has closed its side.
            Err(_) => self.input.drop_all(),
        }
    }

    /// Whether a connection that sends no more still takes something: nothing, sent to one that does not, fails.
    fn look_for_peer(&mut self) {
        let Some(peer) = &self.peer else { return };
        match super::poll::has_hung_up(peer.as_fd()) {
            None => {}
            Some(false) => self.peer_silent = true,
            Some(true) => self.peer = None,
        }
    }
}

fn would_wait(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
