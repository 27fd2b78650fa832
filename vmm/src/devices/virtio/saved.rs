//! What a snapshot holds of a virtio device, and what of that can be believed.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};
use vm_memory::GuestMemoryMmap;

use super::chain::Malformed;
use crate::snapshot::bounded::at_most;

/// More than any device has.
const QUEUES_MAX: usize = 16;

/// A device's registers, its queues, and what is its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(super) kind: u32,
    pub(super) offered: u64,
    pub(super) chosen: u64,
    /// Of the features offered, of those chosen, of the queues.
    pub(super) selected: [u32; 3],
    pub(super) status: u32,
    pub(super) interrupt: Interrupt,
    /// As the driver set them up.
    #[serde(deserialize_with = "at_most::<_, _, QUEUES_MAX>")]
    pub(super) queues: Vec<SavedQueue>,
    /// Where they are, from `DRIVER_OK` on and until the driver broke the rules.
    pub(super) running: Option<Running>,
    pub(super) kept: Kept,
}

#[cfg(feature = "fuzzing")]
impl Saved {
    /// The number of the device's kind.
    pub(crate) fn kind(&self) -> u32 {
        self.kind
    }
}

/// What the driver reads of its interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Interrupt {
    pub(super) status: u32,
    pub(super) broken: bool,
    pub(super) generation: u32,
}

/// Queues of a device that its driver runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running(#[serde(deserialize_with = "at_most::<_, _, QUEUES_MAX>")] pub(super) Vec<At>);

/// How far a queue came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct At {
    pub(super) next_available: u16,
    pub(super) next_used: u16,
    /// Where the used ring was when the driver was last told of it.
    pub(super) told: u16,
}

/// What a kind of device has to remember besides its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    /// What there is is in the configuration.
    Nothing,
    /// A disk's size: it must not have changed under the guest.
    Disk {
        /// In sectors.
        sectors: u64,
    },
    /// The next port of the host's side of a connection.
    Vsock {
        /// One of those the device chooses.
        next_port: u32,
    },
    /// How much of its target a balloon holds, as the driver says.
    Balloon {
        /// In pages of the device.
        actual: u32,
    },
}

/// One queue as the driver set it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedQueue {
    size: u16,
    ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl SavedQueue {
    pub(super) fn of(queue: &Queue) -> SavedQueue {
        let state = queue.state();
        SavedQueue {
            size: state.size,
            ready: state.ready,
            descriptors: state.desc_table,
            available: state.avail_ring,
            used: state.used_ring,
        }
    }

    /// The queue, of at most `max_size` descriptors, at its beginning.
    ///
    /// # Errors
    ///
    /// One that no driver could have set up.
    pub(super) fn queue(&self, max_size: u16) -> Result<Queue, Malformed> {
        Queue::try_from(QueueState {
            max_size,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: false,
            size: self.size,
            ready: self.ready,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
        })
        .map_err(|_| Malformed("a queue has a size or an address that none can have"))
    }
}

impl Running {
    /// The queues as they run; each is checked as when a driver starts the device.
    ///
    /// # Errors
    ///
    /// When one lies outside of memory, or there are as many as the device has not.
    pub(super) fn queues(
        &self,
        queues: &[Queue],
        memory: &GuestMemoryMmap,
        event_idx: bool,
    ) -> Result<Vec<Queue>, Malformed> {
        if self.0.len() != queues.len() {
            return Err(Malformed("it has another number of queues"));
        }
        let mut running = Vec::with_capacity(queues.len());
        for (queue, at) in queues.iter().zip(&self.0) {
            if queue.ready() && !queue.is_valid(memory) {
                return Err(Malformed("a queue lies outside of the memory"));
            }
            let mut queue = Queue::try_from(queue.state()).expect("the state of a queue is one");
            queue.set_event_idx(event_idx);
            queue.set_next_avail(at.next_available);
            queue.set_next_used(at.next_used);
            running.push(queue);
        }
        Ok(running)
    }
}
