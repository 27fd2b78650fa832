//! The other side, for tests: a driver that does what a test tells it, right or wrong.

use std::sync::Arc;

use virtio_bindings::virtio_config as status;
use virtio_bindings::virtio_mmio as reg;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::chain::Malformed;
use super::device::Device;
use super::endpoint::{STARTED, Shared};
use super::mmio::Transport;
use super::saved::Saved;
use crate::bus::Registers;

/// Guest memory of a driver, in bytes: rings below [`BUFFERS`], buffers above.
pub(crate) const MEMORY: usize = 1 << 20;
/// Where buffers begin.
pub(crate) const BUFFERS: u64 = 0x8_0000;
/// Rings of a queue lie this far apart.
const QUEUE: u64 = 0x1_0000;

/// One descriptor as a driver writes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) at: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A driver and the device it drives.
pub(crate) struct Driver {
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) registers: Transport,
    pub(crate) shared: Arc<Shared>,
    line: EventFd,
    /// How often something was put into each queue.
    available: Vec<u16>,
    /// As many descriptors as each queue may have.
    sizes: Vec<u16>,
    /// Features it does not take.
    without: u64,
}

impl Driver {
    /// A device nobody has touched.
    pub(crate) fn of(device: impl Device + 'static) -> Driver {
        Driver::shared(Shared::new(device).unwrap())
    }

    /// A device nobody has touched, that somebody else can reach too.
    pub(crate) fn shared(shared: Arc<Shared>) -> Driver {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        Driver::with(shared, memory)
    }

    /// The same, in memory of somebody else's making.
    pub(crate) fn with(shared: Arc<Shared>, memory: GuestMemoryMmap) -> Driver {
        let line = shared.line().try_clone().unwrap();
        let sizes: Vec<u16> = shared.read(|device| device.queue_sizes().to_vec());
        Driver {
            registers: Transport::new(shared.clone(), memory.clone()),
            memory,
            shared,
            line,
            available: vec![0; sizes.len()],
            sizes,
            without: 1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX,
        }
    }

    /// The same driver with another device, that goes on from what was saved of the first.
    pub(crate) fn resume(&self, device: impl Device + 'static, saved: &Saved) -> Result<Driver, Malformed> {
        let mut driver = Driver::with(Shared::new(device).unwrap(), self.memory.clone());
        driver.registers.restore(saved)?;
        driver.registers.interrupt_again();
        driver.available.clone_from(&self.available);
        // Nothing rings: what happened to the first device is not known to the second.
        driver.shared.serve_one(STARTED);
        Ok(driver)
    }

    pub(crate) fn get(&mut self, register: u32) -> u32 {
        let mut bytes = [0; 4];
        self.registers.read(register.into(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn set(&mut self, register: u32, value: u32) {
        assert_eq!(self.registers.write(register.into(), &value.to_le_bytes()), None);
    }

    pub(crate) fn status(&mut self) -> u32 {
        self.get(reg::VIRTIO_MMIO_STATUS)
    }

    /// Up to `FEATURES_OK`, with every feature offered but those in `without`.
    pub(crate) fn agree(&mut self, without: u64) {
        let mut steps = 0;
        for step in [
            status::VIRTIO_CONFIG_S_ACKNOWLEDGE,
            status::VIRTIO_CONFIG_S_DRIVER,
        ] {
            steps |= step;
            self.set(reg::VIRTIO_MMIO_STATUS, steps);
        }
        for half in [0, 1] {
            self.set(reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
            let offered = self.get(reg::VIRTIO_MMIO_DEVICE_FEATURES);
            let without = u32::try_from(without >> (32 * half) & u64::from(u32::MAX)).unwrap();
            self.set(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            self.set(reg::VIRTIO_MMIO_DRIVER_FEATURES, offered & !without);
        }
        self.set(
            reg::VIRTIO_MMIO_STATUS,
            steps | status::VIRTIO_CONFIG_S_FEATURES_OK,
        );
    }

    /// Where the rings of a queue lie: descriptors, available, used.
    pub(crate) fn rings(queue: u32) -> [u64; 3] {
        let base = 0x1000 + u64::from(queue) * QUEUE;
        [base, base + 0x4000, base + 0x6000]
    }

    /// Sets a queue up with as many descriptors as it may have.
    pub(crate) fn set_queue(&mut self, queue: u32) {
        self.set(reg::VIRTIO_MMIO_QUEUE_SEL, queue);
        let size = self.get(reg::VIRTIO_MMIO_QUEUE_NUM_MAX);
        self.set(reg::VIRTIO_MMIO_QUEUE_NUM, size);
        let registers = [
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW,
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
            reg::VIRTIO_MMIO_QUEUE_USED_LOW,
        ];
        for (register, at) in registers.into_iter().zip(Self::rings(queue)) {
            self.set(register, u32::try_from(at).unwrap());
        }
        self.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// The last step.
    pub(crate) fn go(&mut self) {
        let status = self.status();
        self.set(
            reg::VIRTIO_MMIO_STATUS,
            status | status::VIRTIO_CONFIG_S_DRIVER_OK,
        );
    }

    /// All steps, without notifications by position so that every used buffer interrupts.
    pub(crate) fn start(device: impl Device + 'static) -> Driver {
        Driver::start_without(device, &[])
    }

    /// All steps, also without these features.
    pub(crate) fn start_without(device: impl Device + 'static, features: &[u32]) -> Driver {
        let mut driver = Driver::of(device);
        for feature in features {
            driver.without |= 1 << feature;
        }
        driver.restart();
        driver
    }

    /// A reset, empty rings, and all steps again.
    pub(crate) fn restart(&mut self) {
        let all: Vec<u32> = (0..u32::try_from(self.available.len()).unwrap()).collect();
        self.only(&all);
    }

    /// The same with these queues alone.
    pub(crate) fn only(&mut self, queues: &[u32]) {
        self.set(reg::VIRTIO_MMIO_STATUS, 0);
        let zeroes = vec![0; usize::try_from(BUFFERS).unwrap()];
        self.memory.write_slice(&zeroes, GuestAddress(0)).unwrap();
        self.agree(self.without);
        self.available.fill(0);
        for queue in queues {
            self.set_queue(*queue);
        }
        self.go();
        self.shared.serve_all();
        while self.interrupted() {}
    }

    /// Writes one descriptor of a queue's table.
    pub(crate) fn describe(&self, queue: u32, number: u16, descriptor: Descriptor) {
        let at = Self::rings(queue)[0] + u64::from(number) * 16;
        self.describe_at(at, descriptor);
    }

    /// Writes a descriptor anywhere.
    pub(crate) fn describe_at(&self, at: u64, descriptor: Descriptor) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&descriptor.at.to_le_bytes());
        bytes[8..12].copy_from_slice(&descriptor.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&descriptor.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&descriptor.next.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// Makes the chain that begins at `head` available, and lets the device look.
    pub(crate) fn offer(&mut self, queue: u32, head: u16) {
        self.add(queue, head);
        self.shared.serve_all();
    }

    /// Makes the chain that begins at `head` available, and says nothing.
    pub(crate) fn add(&mut self, queue: u32, head: u16) {
        let number = usize::try_from(queue).unwrap();
        let slot = u64::from(self.available[number] % self.sizes[number]);
        let ring = Self::rings(queue)[1];
        self.memory
            .write_obj(head, GuestAddress(ring + 4 + 2 * slot))
            .unwrap();
        self.available[number] = self.available[number].wrapping_add(1);
        self.memory
            .write_obj(self.available[number], GuestAddress(ring + 2))
            .unwrap();
    }

    /// Whether the device wants to hear of what is put into the queue.
    pub(crate) fn is_listened_to(&self, queue: u32) -> bool {
        let flags: u16 = self.memory.read_obj(GuestAddress(Self::rings(queue)[2])).unwrap();
        flags & 1 == 0
    }

    /// Writes a chain of (address, length, writable) at descriptor 0 and offers it.
    pub(crate) fn send(&mut self, queue: u32, parts: &[(u64, u32, bool)]) {
        self.put(queue, parts);
        self.shared.serve_all();
    }

    /// The same, and says nothing.
    pub(crate) fn put(&mut self, queue: u32, parts: &[(u64, u32, bool)]) {
        for (number, (at, length, writable)) in (0_u16..).zip(parts) {
            let last = usize::from(number) + 1 == parts.len();
            let flags = if *writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
            let descriptor = Descriptor {
                at: *at,
                length: *length,
                flags,
                next: number + 1,
            };
            self.describe(queue, number, descriptor);
        }
        self.add(queue, 0);
    }

    /// Says that there is something in a queue that another thread serves, and waits for that to happen.
    pub(crate) fn ring(&mut self, queue: u32) {
        self.set(reg::VIRTIO_MMIO_QUEUE_NOTIFY, queue);
        self.wait();
    }

    /// Waits for the device's interrupt.
    pub(crate) fn wait(&self) {
        // As often as a minute has room for; the descriptor cannot be waited for in safe code.
        for _ in 0..600_000 {
            if self.interrupted() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        panic!("the device does not answer");
    }

    /// How many chains the device has used, and the length it gave for the last.
    pub(crate) fn used(&self, queue: u32) -> (u16, u32) {
        let ring = Self::rings(queue)[2];
        let count: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        (count, self.used_entry(queue, count.wrapping_sub(1))[1])
    }

    /// Head and length of the chain that was used as the `number`th, from 0.
    pub(crate) fn used_entry(&self, queue: u32, number: u16) -> [u32; 2] {
        let size = self.sizes[usize::try_from(queue).unwrap()];
        let at = Self::rings(queue)[2] + 4 + 8 * u64::from(number % size);
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    pub(crate) fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    /// Whether the device raised its interrupt since the last time.
    pub(crate) fn interrupted(&self) -> bool {
        self.line.read().is_ok()
    }

    pub(crate) fn is_broken(&mut self) -> bool {
        self.status() & status::VIRTIO_CONFIG_S_NEEDS_RESET != 0
    }
}
