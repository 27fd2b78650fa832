//! virtio over memory-mapped registers (virtio 1.2 §4.2.2), and the driver's steps through them (§3.1.1).
//!
//! ```text
//! reset ─► ACKNOWLEDGE ─► DRIVER ─► features ─► FEATURES_OK ─► queues ─► DRIVER_OK: the device runs
//!   ▲                                                                         │
//!   └── 0 written to Status, any time ◄──── DEVICE_NEEDS_RESET ◄── malformed ─┘
//! ```
//!
//! Features can be written before `FEATURES_OK` alone, queues between it and `DRIVER_OK` alone; what comes at another time
//! is not heard. In particular no queue moves while the device runs (CVE-2026-5747).

use std::sync::Arc;

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as reg;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::chain::Malformed;
use super::device::common_features;
use super::endpoint::Shared;
use super::saved::{Saved, SavedQueue};
use crate::bus::Registers;
use crate::exit::Exit;

/// Length of a device's registers, configuration space included.
pub(crate) const MMIO_LEN: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"BRTH");
const CONFIG: u64 = reg::VIRTIO_MMIO_CONFIG as u64;
/// `SHMLenLow` and `SHMLenHigh`: all ones where there is no shared memory.
const SHARED_MEMORY_LENGTH: std::ops::Range<u32> = 0xb0..0xb8;

/// The registers of one device.
pub(crate) struct Transport {
    shared: Arc<Shared>,
    memory: GuestMemoryMmap,
    kind: u32,
    offered: u64,
    /// What the driver chose of them.
    chosen: u64,
    offered_select: u32,
    chosen_select: u32,
    queue_select: u32,
    /// As the driver sets them up; a copy of each runs.
    queues: Vec<Queue>,
    status: u32,
}

impl Transport {
    pub(crate) fn new(shared: Arc<Shared>, memory: GuestMemoryMmap) -> Transport {
        let (kind, offered, queues) = {
            let served = shared.served();
            let queues = served
                .device
                .queue_sizes()
                .iter()
                .map(|size| Queue::new(*size).expect("devices name powers of two"))
                .collect();
            let offered = served.device.features() | common_features();
            (served.device.kind(), offered, queues)
        };
        Transport {
            shared,
            memory,
            kind,
            offered,
            chosen: 0,
            offered_select: 0,
            chosen_select: 0,
            queue_select: 0,
            queues,
            status: 0,
        }
    }

    /// What a snapshot has to know of registers and device.
    ///
    /// # Errors
    ///
    /// Those of [`super::device::Device::save`].
    pub(crate) fn save(&self) -> Result<Saved, &'static str> {
        let (running, kept) = self.shared.save()?;
        Ok(Saved {
            kind: self.kind,
            offered: self.offered,
            chosen: self.chosen,
            selected: [self.offered_select, self.chosen_select, self.queue_select],
            status: self.status,
            interrupt: self.shared.interrupt.save(),
            queues: self.queues.iter().map(SavedQueue::of).collect(),
            running,
            kept,
        })
    }

    /// Where the driver has put its queues.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn rings(&self) -> Vec<crate::fuzzing::Rings> {
        let of = |queue: &Queue| crate::fuzzing::Rings {
            size: queue.size(),
            ready: queue.ready(),
            descriptors: queue.desc_table(),
            available: queue.avail_ring(),
            used: queue.used_ring(),
        };
        self.queues.iter().map(of).collect()
    }

    /// Raises again an interrupt the driver has not acknowledged: whether it heard of it nobody knows.
    pub(crate) fn interrupt_again(&self) {
        self.shared.interrupt.say_again();
    }

    /// Goes on from what was saved, in a device that nobody has touched.
    ///
    /// # Errors
    ///
    /// Why no driver could have brought the device there.
    pub(crate) fn restore(&mut self, saved: &Saved) -> Result<(), Malformed> {
        if (saved.kind, saved.offered) != (self.kind, self.offered) {
            return Err(Malformed("it is another kind of device, or can do other things"));
        }
        if saved.queues.len() != self.queues.len() {
            return Err(Malformed("it has another number of queues"));
        }
        for (queue, saved) in self.queues.iter_mut().zip(&saved.queues) {
            *queue = saved.queue(queue.max_size())?;
        }
        self.status = saved.status;
        self.chosen = saved.chosen;
        [self.offered_select, self.chosen_select, self.queue_select] = saved.selected;
        let steps = [
            VIRTIO_CONFIG_S_ACKNOWLEDGE,
            VIRTIO_CONFIG_S_DRIVER,
            VIRTIO_CONFIG_S_FEATURES_OK,
            VIRTIO_CONFIG_S_DRIVER_OK,
        ];
        let taken = steps.map(|step| saved.status & step != 0);
        let known = steps
            .into_iter()
            .fold(VIRTIO_CONFIG_S_FAILED, |all, step| all | step);
        // Each step after those before it.
        if saved.status & !known != 0 || !taken.is_sorted_by(|before, after| before >= after) {
            return Err(Malformed("its status is none a driver can bring it to"));
        }
        let [.., agreed, started] = taken;
        if agreed && !self.agrees() || saved.running.is_some() != (started && !saved.interrupt.broken) {
            return Err(Malformed("its status is none a driver can bring it to"));
        }
        let event_idx = self.chosen & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let running = match &saved.running {
            Some(running) => Some((running.queues(&self.queues, &self.memory, event_idx)?, running)),
            None => None,
        };
        self.shared
            .restore(&self.memory, self.chosen, running, saved.kept)?;
        self.shared.interrupt.restore(saved.interrupt);
        Ok(())
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    fn register(&self, at: u32) -> u32 {
        let low_or_high = |bits: u64, select: u32| match select {
            0 => low(bits),
            1 => high(bits),
            _ => 0,
        };
        match at {
            reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            reg::VIRTIO_MMIO_VERSION => VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID => self.kind,
            reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            reg::VIRTIO_MMIO_DEVICE_FEATURES => low_or_high(self.offered, self.offered_select),
            reg::VIRTIO_MMIO_QUEUE_NUM_MAX => self.queue().map_or(0, |queue| queue.max_size().into()),
            reg::VIRTIO_MMIO_QUEUE_READY => self.queue().map_or(0, |queue| queue.ready().into()),
            reg::VIRTIO_MMIO_INTERRUPT_STATUS => self.shared.interrupt.status(),
            reg::VIRTIO_MMIO_CONFIG_GENERATION => self.shared.interrupt.generation(),
            reg::VIRTIO_MMIO_STATUS if self.shared.interrupt.is_broken() => {
                self.status | VIRTIO_CONFIG_S_NEEDS_RESET
            }
            reg::VIRTIO_MMIO_STATUS => self.status,
            at if SHARED_MEMORY_LENGTH.contains(&at) => u32::MAX,
            _ => 0,
        }
    }

    fn set_register(&mut self, at: u32, value: u32) {
        match at {
            reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.offered_select = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.chosen_select = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES => self.choose(value),
            reg::VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            reg::VIRTIO_MMIO_INTERRUPT_ACK => self.shared.interrupt.acknowledge(value),
            reg::VIRTIO_MMIO_STATUS => self.set_status(value),
            // KVM answers the driver's notifications itself (ioeventfd); one it did not know is rung here.
            reg::VIRTIO_MMIO_QUEUE_NOTIFY => {
                let bell = usize::try_from(value)
                    .ok()
                    .and_then(|queue| self.shared.bells.get(queue));
                if let Some(bell) = bell {
                    // Fails only when it has been rung 2^64 times.
                    let _ = bell.write(1);
                }
            }
            _ => self.set_queue(at, value),
        }
    }

    fn choose(&mut self, value: u32) {
        if self.status & VIRTIO_CONFIG_S_DRIVER == 0 || self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return;
        }
        match self.chosen_select {
            0 => self.chosen = self.chosen & !u64::from(u32::MAX) | u64::from(value),
            1 => self.chosen = self.chosen & u64::from(u32::MAX) | u64::from(value) << 32,
            _ => {}
        }
    }

    fn set_queue(&mut self, at: u32, value: u32) {
        let steps = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
        if self.status & steps != VIRTIO_CONFIG_S_FEATURES_OK {
            return;
        }
        let Some(queue) = usize::try_from(self.queue_select)
            .ok()
            .and_then(|n| self.queues.get_mut(n))
        else {
            return;
        };
        if at == reg::VIRTIO_MMIO_QUEUE_READY {
            queue.set_ready(value == 1);
            return;
        }
        if queue.ready() {
            return;
        }
        match at {
            // A size that is none of a queue's is 0, which nothing takes; the queue keeps its own.
            reg::VIRTIO_MMIO_QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            reg::VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            reg::VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let added = value & !self.status;
        // Steps are taken, never back, and one at a time but for the first two, which say nothing to a device.
        let next = match self.status & !VIRTIO_CONFIG_S_FAILED {
            0 if value & VIRTIO_CONFIG_S_ACKNOWLEDGE != 0 => {
                VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER
            }
            0 => VIRTIO_CONFIG_S_ACKNOWLEDGE,
            VIRTIO_CONFIG_S_ACKNOWLEDGE => VIRTIO_CONFIG_S_DRIVER,
            steps if steps & VIRTIO_CONFIG_S_FEATURES_OK == 0 => VIRTIO_CONFIG_S_FEATURES_OK,
            _ => VIRTIO_CONFIG_S_DRIVER_OK,
        };
        if value & VIRTIO_CONFIG_S_FAILED != 0 {
            self.status |= VIRTIO_CONFIG_S_FAILED;
        }
        if value & self.status != self.status || added & !(next | VIRTIO_CONFIG_S_FAILED) != 0 {
            return;
        }
        if self.status & VIRTIO_CONFIG_S_FAILED != 0 {
            return;
        }
        if added & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !self.agrees() {
            return;
        }
        if added & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.activate();
        }
        self.status |= added;
    }

    /// Whether the driver chose what was offered, and version 1 of the specification among it.
    fn agrees(&self) -> bool {
        self.chosen & !self.offered == 0 && self.chosen & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn activate(&mut self) {
        let event_idx = self.chosen & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let mut running = Vec::with_capacity(self.queues.len());
        for queue in &mut self.queues {
            queue.set_event_idx(event_idx);
            if queue.ready() && !queue.is_valid(&self.memory) {
                self.shared.interrupt.needs_reset();
                return;
            }
            let copy = Queue::try_from(queue.state()).expect("the state of a queue is one");
            running.push(copy);
        }
        self.shared.start(&self.memory, self.chosen, running);
    }

    fn reset(&mut self) {
        // Waits for what the device does at this moment: afterwards nothing of it touches the guest's memory.
        self.shared.stop();
        self.queues.iter_mut().for_each(QueueT::reset);
        self.shared.interrupt.reset();
        (self.status, self.chosen) = (0, 0);
        (self.offered_select, self.chosen_select, self.queue_select) = (0, 0, 0);
    }
}

fn low(bits: u64) -> u32 {
    u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits")
}

fn high(bits: u64) -> u32 {
    low(bits >> 32)
}

impl Registers for Transport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(CONFIG) {
            let served = self.shared.served();
            let config = served.device.config();
            let at = usize::try_from(at).expect("a page");
            if let Some(bytes) = config.get(at..) {
                let length = bytes.len().min(data.len());
                data[..length].copy_from_slice(&bytes[..length]);
            }
        } else if data.len() == 4 {
            // Registers are read and written as wholes (virtio 1.2 §4.2.2.2).
            let at = u32::try_from(offset).expect("a page");
            data.copy_from_slice(&self.register(at).to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Exit> {
        if let Some(at) = offset.checked_sub(CONFIG) {
            let mut served = self.shared.served();
            if self.status & VIRTIO_CONFIG_S_DRIVER != 0 {
                served.device.write_config(at, data);
            }
        } else if let Ok(value) = data.try_into() {
            let at = u32::try_from(offset).expect("a page");
            self.set_register(at, u32::from_le_bytes(value));
        }
        None
    }
}
