//! The keeper: the process that was started, which stays outside of the jail. It takes settings, makes the machine's process at the
//! start, passes requests on to it with the files they name, and puts things away in the end.
//!
//! ```text
//! clients ─ HTTP ─► keeper: Server, Controller ─ start ─ fork ─► machine.rs: Controller, jail, event loop, guest
//!                     │ child.rs ◄──────────── link.rs: requests and descriptors, answers ────────────► │
//!                     └ waits for its end ─► the terminal, the sockets' names, the exit status
//! ```
//!
//! Until the start it is alone, with one thread, and has met nothing of a guest's. The machine can ask it for one thing alone, a
//! connection to who listens for the guest on a port (door.rs); for the rest it answers, and what it answers is checked. Either ends with the other: the machine is killed when the keeper ends, however that
//! happens (`PR_SET_PDEATHSIG`).

mod child;
mod door;
mod link;
mod machine;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

pub use child::End;
pub(crate) use door::{Door, connect};
pub use link::Orders;

use crate::api::{Command, Request, Response, Server};
use crate::console::RawTerminal;
use crate::control::Controller;
use crate::control::files::Outside;
use crate::error::{Error, Result};
use crate::run;
use child::Child;

/// Obeys the API on `server`, has the machine run in a process of its own once it is started, and waits for its end; when `starts`, it is
/// started at once. `input` is the console's: a terminal is raw while the machine runs, and as before afterwards.
///
/// For a process of one thread.
///
/// # Errors
///
/// Those of a start that no client asked for; [`Error::Events`] and [`Error::Api`].
pub fn keep(
    controller: Controller,
    mut server: Option<Server>,
    starts: bool,
    input: BorrowedFd<'_>,
) -> Result<End> {
    let mut keeper = Keeper {
        terminal: None,
        controller,
        child: None,
        input,
        ended: None,
    };
    let minute = run::minute()?;
    if starts {
        let plan = keeper.controller.plan()?;
        keeper.child = Some(Child::start(&mut keeper.controller, plan, None)?);
        keeper.terminal = RawTerminal::enter(input);
    }
    loop {
        if let Some(child) = &mut keeper.child
            && let Some(end) = child.ended()?
        {
            return Ok(end);
        }
        if let Some(end) = keeper.ended {
            return Ok(end);
        }
        keeper.wait(server.as_ref(), &minute)?;
        if let Some(server) = &mut server {
            server.on_event(&mut |request| keeper.handle(request))?;
        }
    }
}

struct Keeper<'a> {
    /// Put back first.
    terminal: Option<RawTerminal<'a>>,
    /// Of what is before the machine.
    controller: Controller,
    child: Option<Child>,
    input: BorrowedFd<'a>,
    /// A start was cut off by a signal to this process.
    ended: Option<End>,
}

impl Keeper<'_> {
    fn wait(&self, server: Option<&Server>, minute: &OwnedFd) -> Result<()> {
        let mut fds = Vec::with_capacity(4);
        match &self.child {
            Some(child) => fds.extend(
                child
                    .sources()
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            ),
            // The counters are the machine's once it is there.
            None => fds.push(PollFd::new(minute, PollFlags::IN)),
        }
        fds.extend(server.map(|server| PollFd::from_borrowed_fd(server.as_fd(), PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => {
                return Err(Error::Events {
                    operation: "wait for events",
                    source: e.into(),
                });
            }
        }
        let is_due = self.child.is_none() && !fds[0].revents().is_empty();
        if is_due {
            // How many minutes does not matter.
            let _ = rustix::io::read(minute, &mut [0; 8]);
            self.controller.flush_metrics();
        }
        Ok(())
    }

    fn handle(&mut self, request: &Request) -> Response {
        if let Some(child) = &mut self.child {
            return Keeper::outside(&self.controller, request)
                .and_then(|outside| child.ask(request, outside))
                .unwrap_or_else(|e| {
                    let text = e.told();
                    log::error!("a request failed outside of the jail: {text:?}");
                    Response::fault(&text)
                });
        }
        let (mut started, mut ended) = (None, None);
        let mut start =
            |controller: &mut Controller, plan| match Child::start(controller, plan, Some(request)) {
                Ok(child) => {
                    started = Some(child);
                    Ok(())
                }
                Err(e) => {
                    if let Error::Stopped(signal) = e {
                        ended = Some(End::Signal(signal));
                    }
                    Err(e)
                }
            };
        let response = self.controller.handle_beside(request, &mut start);
        if started.is_some() {
            self.terminal = RawTerminal::enter(self.input);
        }
        (self.child, self.ended) = (started, ended);
        response
    }

    /// Opens what a request names. One that is none is the machine's to refuse.
    fn outside(controller: &Controller, request: &Request) -> Result<Outside> {
        match Command::of(request) {
            Ok(Command::Act(action)) => Outside::open(&action, controller.settings()),
            _ => Ok(Outside::Nothing),
        }
    }
}
