//! Lets a machine run: a thread for each processor, and one event loop for everything else.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::mpsc;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::EventFd;

use crate::boot::Machine;
use crate::console::{Console, RawTerminal};
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
/// [`Error::Events`] when a thread or the event loop cannot be made.
pub fn run(machine: Machine, input: BorrowedFd<'_>) -> Result<Exit> {
    let mut events =
        EventManager::<Box<dyn MutEventSubscriber>>::new().map_err(failed("make an event loop"))?;
    // Given up at the end of this function, whatever the processors' threads still hold.
    let _sockets = machine.sockets;
    for endpoint in machine.endpoints {
        events.add_subscriber(Box::new(endpoint));
    }
    let _raw = RawTerminal::enter(input);
    let input = input
        .try_clone_to_owned()
        .map_err(failed("keep the console's input"))?;
    events.add_subscriber(Box::new(Console::new(machine.serial, input)));
    let ended = Rc::new(Cell::new(false));
    let ending = eventfd()?;
    let tell = ending.try_clone().map_err(failed("share an event"))?;
    events.add_subscriber(Box::new(Ending {
        event: ending,
        ended: ended.clone(),
    }));

    let (sender, exits) = mpsc::channel();
    for (id, vcpu) in machine.vcpus.into_iter().enumerate() {
        let (ports, mmio) = (machine.ports.clone(), machine.mmio.clone());
        let sender = sender.clone();
        let tell = tell.try_clone().map_err(failed("share an event"))?;
        let vm = machine.vm.clone();
        std::thread::Builder::new()
            .name(format!("vcpu {id}"))
            .spawn(move || {
                // The first to end ends the machine; nobody listens to the others.
                let _ = sender.send(vcpu::run(vcpu, &ports, &mmio));
                // Fails only when it overflows, and then it has been told.
                let _ = tell.write(1);
                // Not before: an address given back while a processor runs would be the guest's still, whatever lies
                // there next.
                drop(vm);
            })
            .map_err(failed("start a processor's thread"))?;
    }
    while !ended.get() {
        events
            .run()
            .map_err(|e| failed("wait for events")(io::Error::other(e)))?;
    }
    Ok(exits.try_recv().unwrap_or(Exit::Failed))
}

fn eventfd() -> Result<EventFd> {
    EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).map_err(failed("create an event"))
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(operation: &'static str) -> impl Fn(E) -> Error {
    move |source| Error::Events {
        operation,
        source: io::Error::other(source),
    }
}

/// Ends the event loop when a processor has ended.
struct Ending {
    event: EventFd,
    ended: Rc<Cell<bool>>,
}

impl MutEventSubscriber for Ending {
    fn init(&mut self, ops: &mut EventOps) {
        ops.add(Events::new(&self.event, EventSet::IN))
            .expect("a fresh descriptor can be watched");
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        self.ended.set(true);
    }
}
