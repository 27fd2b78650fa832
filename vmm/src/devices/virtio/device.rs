//! What a virtio device has to do, and what it is given while its driver has it running.

use std::num::Wrapping;
use std::os::fd::RawFd;
use std::sync::Arc;

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::chain::{Chain, Malformed};
use super::interrupt::Interrupt;
use super::saved::{At, Kept, Running};
use super::used;

/// One kind of virtio device. Called by the event loop's thread, with the exception of [`Device::config`],
/// [`Device::write_config`] and [`Device::reset`], which a processor's thread calls; never two at once. Nothing may block
/// for longer than a disk takes.
///
/// An error means that the guest broke the rules: the device is stopped and says `DEVICE_NEEDS_RESET`.
pub(crate) trait Device: Send {
    /// The device's number (virtio 1.2 §5).
    fn kind(&self) -> u32;

    /// Feature bits it offers besides those every device of ours has ([`common_features`]).
    fn features(&self) -> u64;

    /// The most descriptors each of its queues may have, powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// The device's configuration space as it reads now.
    fn config(&self) -> &[u8];

    /// The driver writes to the configuration space. Most devices have nothing there to be written.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Descriptors to watch besides the queues, the same as long as the device lives. [`Device::ready`] hears of each
    /// change to readable once (edge-triggered), whether the driver runs the device or not.
    fn sources(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// The driver may have put something into any queue: it just started the device.
    fn started(&mut self, active: &mut Active) -> Result<(), Malformed> {
        (0..active.queues.len()).try_for_each(|queue| self.notified(active, queue))
    }

    /// The driver says it put something into `queue`.
    fn notified(&mut self, active: &mut Active, queue: usize) -> Result<(), Malformed>;

    /// The source with this position in [`Device::sources`] is readable; `active` is there while the driver has the device
    /// running.
    fn ready(&mut self, _active: Option<&mut Active>, _source: usize) -> Result<(), Malformed> {
        Ok(())
    }

    /// The driver took its queues back. Whatever belonged to them is to be forgotten.
    fn reset(&mut self) {}

    /// How many chains of `queue` it took and has not given back, the last that were taken. Who goes on from a snapshot takes
    /// them again.
    fn held(&self, _queue: usize) -> u16 {
        0
    }

    /// What a snapshot has to remember besides configuration, features and queues, with everything written where it belongs.
    ///
    /// # Errors
    ///
    /// Why such a device cannot be part of a snapshot.
    fn save(&mut self) -> Result<Kept, &'static str>;

    /// Goes on from what was saved; in a device that is `driven`, [`Device::started`] follows.
    ///
    /// # Errors
    ///
    /// What is not of this device, or cannot be.
    fn restore(&mut self, kept: Kept, _driven: bool) -> Result<(), Malformed> {
        match kept {
            Kept::Nothing => Ok(()),
            _ => Err(Malformed("it was another kind of device")),
        }
    }
}

/// What every device of ours can: version 1, and notifications asked for by position in the ring.
pub(crate) const fn common_features() -> u64 {
    1 << virtio_bindings::virtio_config::VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX
}

/// A device that its driver runs: queues that were checked, and the way to say that they moved.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) memory: GuestMemoryMmap,
    features: u64,
    pub(crate) queues: Vec<Queue>,
    interrupt: Arc<Interrupt>,
    /// What the driver rings for each queue.
    bells: Arc<[EventFd]>,
    /// Where each used ring was when the driver was last told of it, if it wanted to be.
    told: Vec<Wrapping<u16>>,
}

impl Active {
    pub(super) fn new(
        memory: GuestMemoryMmap,
        features: u64,
        queues: Vec<Queue>,
        interrupt: Arc<Interrupt>,
        bells: Arc<[EventFd]>,
    ) -> Active {
        let told = queues.iter().map(|queue| Wrapping(queue.next_used())).collect();
        Active {
            memory,
            features,
            queues,
            interrupt,
            bells,
            told,
        }
    }

    /// How far each queue came, without the chains that `device` holds.
    pub(super) fn save(&self, device: &(impl Device + ?Sized)) -> Running {
        let queues = self.queues.iter().zip(&self.told).enumerate();
        let at = |(number, (queue, told)): (usize, (&Queue, &Wrapping<u16>))| At {
            next_available: queue.next_avail().wrapping_sub(device.held(number)),
            next_used: queue.next_used(),
            told: told.0,
        };
        Running(queues.map(at).collect())
    }

    /// What was told of each queue before.
    pub(super) fn restore(&mut self, running: &Running) {
        for (told, at) in self.told.iter_mut().zip(&running.0) {
            *told = Wrapping(at.told);
        }
    }

    /// Whether device and driver agreed on this feature.
    pub(crate) fn has(&self, feature: u32) -> bool {
        self.features & 1 << feature != 0
    }

    /// The next chain the driver put into `queue`.
    pub(crate) fn pop(&mut self, queue: usize) -> Result<Option<Chain>, Malformed> {
        use virtio_queue::QueueOwnedT;
        let Active { memory, queues, .. } = self;
        let queue = &mut queues[queue];
        if !queue.ready() {
            return Ok(None);
        }
        let longest = queue.size();
        let memory: &GuestMemoryMmap = memory;
        let mut chains = queue
            .iter(memory)
            .map_err(|_| Malformed("the available ring's index is not possible"))?;
        chains
            .next()
            .map(|chain| Chain::read_from(memory, chain, longest))
            .transpose()
    }

    /// The chain that was popped last from `queue` goes back: there is nothing to do with it now.
    pub(crate) fn unpop(&mut self, queue: usize) {
        use virtio_queue::QueueOwnedT;
        self.queues[queue].go_to_previous_position();
    }

    /// Gives a chain back with `length` bytes written into it. The driver hears of it with [`Active::tell`].
    pub(crate) fn used(&mut self, queue: usize, head: u16, length: usize) -> Result<(), Malformed> {
        self.used_together(queue, &[(head, length)])
    }

    /// Gives chains back that belong together: the driver sees all of them or none.
    pub(crate) fn used_together(&mut self, queue: usize, chains: &[(u16, usize)]) -> Result<(), Malformed> {
        used::add(&mut self.queues[queue], &self.memory, chains)
    }

    /// Interrupts the driver, when chains were used since the last time and it wants to hear of them.
    pub(crate) fn tell(&mut self, queue: usize) -> Result<(), Malformed> {
        let (ring, told) = (&self.queues[queue], &mut self.told[queue]);
        if told.0 == ring.next_used() {
            return Ok(());
        }
        if used::wants_interrupt(ring, &self.memory, *told)? {
            self.interrupt.used();
        }
        *told = Wrapping(ring.next_used());
        Ok(())
    }

    /// Serves `queue` once more, after others had their turn.
    pub(crate) fn ring(&self, queue: usize) {
        // Fails only when it has been rung 2^64 times.
        let _ = self.bells[queue].write(1);
    }

    /// The driver need not say anything about `queue`: it is looked at anyway.
    pub(crate) fn listen_not(&mut self, queue: usize) -> Result<(), Malformed> {
        self.queues[queue]
            .disable_notification(&self.memory)
            .map_err(|_| Malformed("the used ring cannot be written"))
    }

    /// The driver is to say when it puts something into `queue`; whether there is something already.
    pub(crate) fn listen(&mut self, queue: usize) -> Result<bool, Malformed> {
        self.queues[queue]
            .enable_notification(&self.memory)
            .map_err(|_| Malformed("the used ring cannot be written"))
    }

    /// Takes chains from `queue` for `each` until there is none, or until as many were taken as the queue has room for;
    /// then the bell is rung again, so that a driver that never stops cannot keep the event loop from others. `each` says
    /// how many bytes it wrote, or `None` to put the chain back and stop.
    pub(crate) fn drain(
        &mut self,
        queue: usize,
        mut each: impl FnMut(&GuestMemoryMmap, Chain) -> Result<Option<usize>, Malformed>,
    ) -> Result<(), Malformed> {
        let mut left = self.queues[queue].size();
        if !self.queues[queue].ready() {
            return Ok(());
        }
        loop {
            self.listen_not(queue)?;
            let mut stopped = false;
            while left > 0 {
                let Some(chain) = self.pop(queue)? else { break };
                let head = chain.head;
                match each(&self.memory, chain)? {
                    Some(length) => {
                        self.used(queue, head, length)?;
                        left -= 1;
                    }
                    None => {
                        self.unpop(queue);
                        stopped = true;
                        break;
                    }
                }
            }
            self.tell(queue)?;
            let more = self.listen(queue)?;
            if stopped || !more {
                return Ok(());
            }
            if left == 0 {
                self.ring(queue);
                return Ok(());
            }
        }
    }
}
