//! Lets a machine run: a thread for each processor, and one event loop for everything else.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::boot::Machine;
use crate::devices::serial::SerialPort;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::vcpu;

/// Runs until the guest ends. `input` is the console's; at its end the guest goes on without. A terminal is raw meanwhile,
/// and as before afterwards.
///
/// The processors' threads are not stopped: the process is expected to end with the machine.
///
/// # Errors
///
/// [`Error::Events`] when a thread or the event that ends the loop cannot be made.
pub fn run(machine: Machine, input: BorrowedFd<'_>) -> Result<Exit> {
    let ended = Ended::new()?;
    let (sender, exits) = mpsc::channel();
    for (id, vcpu) in machine.vcpus.into_iter().enumerate() {
        let (ports, mmio) = (machine.ports.clone(), machine.mmio.clone());
        let (sender, ended) = (sender.clone(), ended.again()?);
        let vm = machine.vm.clone();
        std::thread::Builder::new()
            .name(format!("vcpu {id}"))
            .spawn(move || {
                // The first to end ends the machine; nobody listens to the others.
                let _ = sender.send(vcpu::run(vcpu, &ports, &mmio));
                ended.tell();
                // Not before: an address given back while a processor runs would be the guest's still, whatever lies
                // there next.
                drop(vm);
            })
            .map_err(|source| Error::Events {
                operation: "start a processor's thread",
                source,
            })?;
    }
    let _raw = RawTerminal::enter(input);
    console(&machine.serial, input, &ended)?;
    Ok(exits.try_recv().unwrap_or(Exit::Failed))
}

/// Feeds the console until the machine has ended.
fn console(serial: &Arc<Mutex<SerialPort>>, input: BorrowedFd<'_>, ended: &Ended) -> Result<()> {
    let mut open = true;
    let mut buffer = [0; 1024];
    loop {
        let room = serial.lock().unwrap_or_else(PoisonError::into_inner).room();
        let mut fds = vec![PollFd::new(&ended.event, PollFlags::IN)];
        let listens = open && room > 0;
        if listens {
            fds.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
        }
        // Without room nothing tells us when the guest has read some; a tenth of a second is soon enough for who types.
        let patience = (open && room == 0).then_some(rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        });
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => {
                return Err(Error::Events {
                    operation: "wait for events",
                    source: e.into(),
                });
            }
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        if listens && !fds[1].revents().is_empty() {
            let most = room.min(buffer.len());
            match rustix::io::read(input, &mut buffer[..most]) {
                Ok(0) => open = false,
                Ok(count) => serial
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .input(&buffer[..count]),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => open = false,
            }
        }
    }
}

/// Says that the machine has ended.
struct Ended {
    event: OwnedFd,
}

impl Ended {
    fn new() -> Result<Ended> {
        eventfd(0, EventfdFlags::CLOEXEC)
            .map(|event| Ended { event })
            .map_err(|e| Self::failed(e.into()))
    }

    fn again(&self) -> Result<Ended> {
        let event = self.event.try_clone().map_err(Self::failed)?;
        Ok(Ended { event })
    }

    fn failed(source: io::Error) -> Error {
        Error::Events {
            operation: "create an event",
            source,
        }
    }

    fn tell(&self) {
        // Fails only when it overflows, and then it has been told.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

/// A terminal that passes every key on.
struct RawTerminal<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawTerminal<'a> {
    /// `None` when it is no terminal.
    fn enter(terminal: BorrowedFd<'a>) -> Option<Self> {
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
