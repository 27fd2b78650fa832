//! Where a device's two sides meet: the registers, written by processors, and the event loop, which serves the queues.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::chain::Malformed;
use super::device::{Active, Device};
use super::interrupt::Interrupt;
use super::saved::{Kept, Running};
use crate::error::{Error, Result};

/// What registers, event loop and API share of a device. The API knows what kind of device it has; nobody else does.
pub(crate) struct Shared<D: ?Sized = dyn Device> {
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) bells: Arc<[EventFd]>,
    /// Tells the event loop that the driver started the device.
    started: EventFd,
    /// Held while the device works: who resets it waits for that.
    served: Mutex<Served<D>>,
}

pub(super) struct Served<D: ?Sized> {
    /// From `DRIVER_OK` to a reset, or until the guest broke the rules.
    active: Option<Active>,
    pub(super) device: D,
}

impl<D: Device> Shared<D> {
    /// # Errors
    ///
    /// [`Error::Events`] when the kernel has no more of them.
    pub(crate) fn new(device: D) -> Result<Arc<Shared<D>>> {
        let event = || EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        let bells: io::Result<Vec<_>> = device.queue_sizes().iter().map(|_| event()).collect();
        let failed = |source| Error::Events {
            operation: "create an event",
            source,
        };
        Ok(Arc::new(Shared {
            interrupt: Arc::new(Interrupt::new().map_err(failed)?),
            bells: bells.map_err(failed)?.into(),
            started: event().map_err(failed)?,
            served: Mutex::new(Served { active: None, device }),
        }))
    }
}

impl<D: Device + ?Sized> Shared<D> {
    /// What the driver rings, in the order of the queues.
    pub(crate) fn bells(&self) -> &[EventFd] {
        &self.bells
    }

    /// What raises the device's interrupt.
    pub(crate) fn line(&self) -> &EventFd {
        self.interrupt.line()
    }

    pub(super) fn served(&self) -> MutexGuard<'_, Served<D>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start(&self, memory: &GuestMemoryMmap, features: u64, queues: Vec<Queue>) {
        let (interrupt, bells) = (self.interrupt.clone(), self.bells.clone());
        self.served().active = Some(Active::new(memory.clone(), features, queues, interrupt, bells));
        // Fails only when it has been told 2^64 times.
        let _ = self.started.write(1);
    }

    pub(super) fn stop(&self) {
        let mut served = self.served();
        served.active = None;
        served.device.reset();
    }

    /// What a snapshot has to know of it besides its registers.
    pub(super) fn save(&self) -> Result<(Option<Running>, Kept), &'static str> {
        let mut served = self.served();
        let Served { device, active } = &mut *served;
        let running = active.as_ref().map(|active| active.save(device));
        Ok((running, device.save()?))
    }

    /// Goes on from what was saved, with the queues that ran.
    pub(super) fn restore(
        &self,
        memory: &GuestMemoryMmap,
        features: u64,
        running: Option<(Vec<Queue>, &Running)>,
        kept: Kept,
    ) -> Result<(), Malformed> {
        self.served().device.restore(kept, running.is_some())?;
        if let Some((queues, running)) = running {
            self.start(memory, features, queues);
            if let Some(active) = &mut self.served().active {
                active.restore(running);
            }
        }
        Ok(())
    }

    /// Looks at the device, from any thread.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&D) -> T) -> T {
        look(&self.served().device)
    }
}

impl<D: Device> Shared<D> {
    /// Changes the device, from any thread. The driver is told when its configuration space reads otherwise then, and what
    /// waits in the queues is looked at again.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut D) -> T) -> T {
        let mut served = self.served();
        let before = served.device.config().to_vec();
        let done = change(&mut served.device);
        if served.device.config() != before {
            self.interrupt.config_changed(served.active.is_some());
        }
        for bell in self.bells.iter() {
            // Fails only when it has been rung 2^64 times.
            let _ = bell.write(1);
        }
        done
    }
}

impl Shared {
    /// Lets the device do something; a guest that broke the rules loses it until the next reset.
    fn serve(&self, work: impl FnOnce(&mut dyn Device, Option<&mut Active>) -> Result<(), Malformed>) {
        let mut served = self.served();
        let Served { device, active } = &mut *served;
        if let Err(Malformed(_)) = work(device, active.as_mut()) {
            served.active = None;
            served.device.reset();
            self.interrupt.needs_reset();
        }
    }
}

/// A device's part in the event loop.
pub(crate) struct Endpoint {
    shared: Arc<Shared>,
    sources: Vec<RawFd>,
}

/// The event that is no bell and no source.
pub(super) const STARTED: u32 = u32::MAX;

impl Endpoint {
    pub(crate) fn new(shared: Arc<Shared>) -> Endpoint {
        let sources = shared.read(Device::sources);
        Endpoint { shared, sources }
    }

    /// Serves the bell or source with this number, bells first.
    fn handle(&self, number: u32) {
        if number == STARTED {
            self.shared.serve(|device, active| match active {
                Some(active) => device.started(active),
                None => Ok(()),
            });
            return;
        }
        let number = usize::try_from(number).expect("a 64-bit host");
        if let Some(source) = number.checked_sub(self.shared.bells.len()) {
            self.shared.serve(|device, active| device.ready(active, source));
        } else {
            self.shared.serve(|device, active| match active {
                Some(active) => device.notified(active, number),
                None => Ok(()),
            });
        }
    }
}

impl MutEventSubscriber for Endpoint {
    fn init(&mut self, ops: &mut EventOps) {
        let bells = self.shared.bells.iter().map(std::os::fd::AsRawFd::as_raw_fd);
        let numbered = (0_u32..).zip(bells.chain(self.sources.iter().copied()));
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        for (number, fd) in numbered {
            ops.add(Events::with_data_raw(fd, number, edge))
                .expect("a fresh descriptor can be watched");
        }
        ops.add(Events::with_data(&self.shared.started, STARTED, edge))
            .expect("a fresh descriptor can be watched");
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        self.handle(events.data());
    }
}

#[cfg(test)]
impl Shared {
    /// What the event loop would do now: the start, then every bell and source.
    pub(crate) fn serve_all(self: &Arc<Shared>) {
        let endpoint = Endpoint::new(self.clone());
        let all = self.bells.len() + endpoint.sources.len();
        for number in std::iter::once(STARTED).chain((0..all).map(|n| u32::try_from(n).unwrap())) {
            endpoint.handle(number);
        }
    }

    /// What the event loop would do if this happened alone: a bell, or a source, which are numbered behind the bells.
    pub(crate) fn serve_one(self: &Arc<Shared>, number: u32) {
        Endpoint::new(self.clone()).handle(number);
    }
}
