//! The event loop: the API, the console, the devices and the metrics, until the guest ends.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::api::Server;
use crate::console::{Console, RawTerminal};
use crate::control::{Controller, Status};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::keeper::Orders;
use crate::metrics::PERIOD;

/// Whom the loop obeys.
pub enum Clients {
    /// Nobody.
    None,
    /// The API's.
    Server(Server),
    /// The process that started this one; the terminal is its own.
    Keeper(Orders),
}

/// Obeys `clients`, and runs the machine once it is started, until the guest ends. `input` is the console's; at its end the guest
/// goes on without. A terminal is raw while the machine runs, and as before afterwards.
///
/// The processors' threads are not stopped: the process is expected to end with the machine.
///
/// # Errors
///
/// [`Error::Events`] and [`Error::Api`] when the event loop fails.
pub fn run(controller: Controller, clients: Clients, input: BorrowedFd<'_>) -> Result<Exit> {
    let owns_terminal = !matches!(clients, Clients::Keeper(_));
    let mut events =
        EventManager::<Box<dyn MutEventSubscriber>>::new().map_err(failed("make an event loop"))?;
    let control = Rc::new(RefCell::new(Control {
        controller,
        clients,
        minute: minute()?,
        failed: None,
    }));
    events.add_subscriber(Box::new(control.clone()));
    let mut raw = None;
    loop {
        let mut now = control.borrow_mut();
        if let Some(e) = now.failed.take() {
            return Err(e);
        }
        if let Some(exit) = now.controller.ended() {
            return Ok(exit);
        }
        if let Some(attached) = now.controller.take_attached() {
            if owns_terminal {
                raw = raw.or_else(|| RawTerminal::enter(input));
            }
            let input = input
                .try_clone_to_owned()
                .map_err(failed("keep the console's input"))?;
            events.add_subscriber(Box::new(Console::new(attached.serial, input)));
            for endpoint in attached.endpoints {
                events.add_subscriber(Box::new(endpoint));
            }
        }
        if now.controller.status() == Status::Paused {
            now.stand()?;
            continue;
        }
        drop(now);
        events
            .run()
            .map_err(|e| failed("wait for events")(io::Error::other(e)))?;
    }
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(operation: &'static str) -> impl Fn(E) -> Error {
    move |source| Error::Events {
        operation,
        source: io::Error::other(source),
    }
}

/// Readable once a [`PERIOD`].
pub(crate) fn minute() -> Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags);
    let timer = timer.map_err(failed("make a timer"))?;
    let period = Timespec {
        tv_sec: PERIOD.as_secs().try_into().expect("a minute"),
        tv_nsec: 0,
    };
    let every = Itimerspec {
        it_interval: period,
        it_value: period,
    };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)
        .map_err(failed("set a timer"))?;
    Ok(timer)
}

impl Clients {
    /// Readable when there is something to do for them.
    fn source(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Clients::None => None,
            Clients::Server(server) => Some(server.as_fd()),
            Clients::Keeper(orders) => Some(orders.as_fd()),
        }
    }
}

/// What the loop does besides the machine.
struct Control {
    controller: Controller,
    clients: Clients,
    minute: OwnedFd,
    failed: Option<Error>,
}

/// Its events: a client, a processor's end, a minute.
const CLIENT: u32 = 0;
const ENDED: u32 = 1;
const MINUTE: u32 = 2;

impl Control {
    fn serve(&mut self) -> Result<()> {
        let Control {
            controller, clients, ..
        } = self;
        match clients {
            Clients::None => Ok(()),
            Clients::Server(server) => server.on_event(&mut |request| controller.handle(request)),
            Clients::Keeper(orders) => {
                orders.on_event(&mut |request, files| controller.handle_with(request, files))
            }
        }
    }

    /// While the machine is paused only clients are heard: devices would change its memory. What happens to them meanwhile is
    /// waiting when it goes on.
    fn stand(&mut self) -> Result<()> {
        if let Some(clients) = self.clients.source() {
            match poll(&mut [PollFd::from_borrowed_fd(clients, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(failed("wait for clients")(io::Error::from(e))),
            }
        }
        self.serve()
    }
}

impl MutEventSubscriber for Control {
    fn init(&mut self, ops: &mut EventOps) {
        let client = self.clients.source().map(|fd| (fd.as_raw_fd(), CLIENT));
        let others = [
            (self.controller.ending().as_raw_fd(), ENDED),
            (self.minute.as_raw_fd(), MINUTE),
        ];
        for (fd, what) in client.into_iter().chain(others) {
            ops.add(Events::with_data_raw(fd, what, EventSet::IN))
                .expect("a fresh descriptor can be watched");
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        match events.data() {
            CLIENT => self.failed = self.serve().err(),
            MINUTE => {
                // How many minutes does not matter.
                let _ = rustix::io::read(&self.minute, &mut [0; 8]);
                self.controller.flush_metrics();
            }
            // The loop asks.
            _ => {}
        }
    }
}
