//! The host's side of the serial console: input for COM1 as it comes, and a terminal that passes every key on.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::devices::serial::SerialPort;

/// Feeds COM1 from a descriptor, no faster than the guest reads.
pub(crate) struct Console {
    serial: Arc<Mutex<SerialPort>>,
    input: OwnedFd,
    /// Whether there may be more to read from it.
    open: bool,
    /// Whether the event loop tells when there is input. Regular files cannot be watched (`epoll_ctl(2)`, `EPERM`), and are
    /// always readable.
    watched: bool,
}

/// Sources of the console: its input, and the port's word that it has room.
const INPUT: u32 = 0;
const ROOM: u32 = 1;

impl Console {
    pub(crate) fn new(serial: Arc<Mutex<SerialPort>>, input: OwnedFd) -> Console {
        Console {
            serial,
            input,
            open: true,
            watched: false,
        }
    }

    /// Begins to watch the input, or reads it where it cannot be watched.
    fn listen(&mut self, ops: &mut EventOps) {
        if !self.open {
            return;
        }
        self.watched = ops.add(self.interest()).is_ok();
        while !self.watched && self.feed() {}
    }

    fn interest(&self) -> Events {
        Events::with_data(&self.input, INPUT, EventSet::IN)
    }

    /// Reads once. Whether there is more to be had now: not at the input's end, nor while the guest has not read what there
    /// is; then the port says when it has.
    fn feed(&mut self) -> bool {
        let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 1024];
        let most = serial.room().min(buffer.len());
        if most == 0 || !self.open {
            return false;
        }
        match rustix::io::read(&self.input, &mut buffer[..most]) {
            Ok(count) if count > 0 => serial.input(&buffer[..count]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return self.watched,
            // A terminal that hung up has said everything, as has a pipe at its end.
            Ok(_) | Err(_) => {
                self.open = false;
                return false;
            }
        }
        serial.room() > 0
    }
}

impl MutEventSubscriber for Console {
    fn init(&mut self, ops: &mut EventOps) {
        let serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        ops.add(Events::with_data(serial.drained(), ROOM, edge))
            .expect("a fresh descriptor can be watched");
        drop(serial);
        self.listen(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match events.data() {
            INPUT if !self.feed() && self.watched => {
                ops.remove(self.interest()).expect("it is watched");
                self.watched = false;
            }
            ROOM if !self.watched => self.listen(ops),
            _ => {}
        }
    }
}

/// A terminal that passes every key on.
pub(crate) struct RawTerminal<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawTerminal<'a> {
    /// `None` when it is no terminal.
    pub(crate) fn enter(terminal: BorrowedFd<'a>) -> Option<Self> {
        let before = tcgetattr(terminal).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw).ok()?;
        Some(RawTerminal { terminal, before })
    }
}

impl Drop for RawTerminal<'_> {
    fn drop(&mut self) {
        // A terminal that hung up needs no settings.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
