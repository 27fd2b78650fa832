//! A guest's driver that does what an input tells it, right or wrong.

use std::cell::RefCell;

use berth_vmm::fuzzing::VirtioDevice;
use virtio_bindings::virtio_config as status;
use virtio_bindings::virtio_mmio as reg;

use crate::allowed::Allowed;
use crate::input::Input;
use crate::memory::{MEMORY, Memory, within};

/// Flags of a descriptor.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
/// Bytes of one.
pub(crate) const DESCRIPTOR: u64 = 16;

/// The rings of a driver that keeps to the rules: those of queue 0 here, each queue's this far behind the last's.
const RINGS: u64 = 0x1000;
const STRIDE: u64 = 0x8000;
/// Behind all rings.
pub(crate) const BUFFERS: u64 = 0x4_0000;
/// A device that has more to do after so many turns of its event loop will have for ever.
const TURNS_MAX: usize = 200;

thread_local! {
    /// Of nothing and of a file. To map them takes longer than most inputs.
    static SPARE: RefCell<[Option<Memory>; 2]> = const { RefCell::new([None, None]) };
}

/// Guest memory as it is at first, for [`Driver::new`].
pub(crate) fn memory(of_file: bool) -> Memory {
    let spare = SPARE.with_borrow_mut(|spare| spare[usize::from(of_file)].take());
    let mut memory = spare.unwrap_or_else(|| Memory::new(of_file));
    memory.clear();
    memory
}

/// A driver and the device it drives.
pub(crate) struct Driver {
    pub(crate) device: VirtioDevice,
    memory: Option<Memory>,
    of_file: bool,
    /// How often something was put into each queue since the last start.
    available: Vec<u16>,
    /// The next descriptor to be used, of each queue.
    next: Vec<u16>,
    /// Where the next buffer goes.
    buffer: u64,
    /// What the device may write to.
    pub(crate) allowed: Allowed,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let memory = self.memory.take();
        SPARE.with_borrow_mut(|spare| spare[usize::from(self.of_file)] = memory);
    }
}

impl Driver {
    /// `memory` is what the device was made with.
    pub(crate) fn new(device: VirtioDevice, memory: Memory, of_file: bool) -> Driver {
        let queues = device.rings().len();
        Driver {
            device,
            memory: Some(memory),
            of_file,
            available: vec![0; queues],
            next: vec![0; queues],
            buffer: BUFFERS,
            allowed: Allowed::default(),
        }
    }

    pub(crate) fn memory(&mut self) -> &mut Memory {
        self.memory.as_mut().expect("until it is dropped")
    }

    /// Another device in the first one's place. Nobody knows what it may write when it is `forged`.
    pub(crate) fn replace(&mut self, device: VirtioDevice, forged: bool) {
        self.device = device;
        self.allowed.is_unknown |= forged;
    }

    pub(crate) fn get(&mut self, register: u32) -> u32 {
        let mut bytes = [0; 4];
        self.device.read(register.into(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn set(&mut self, register: u32, value: u32) {
        self.write_register(register.into(), &value.to_le_bytes());
    }

    /// Any access, of any width.
    pub(crate) fn write_register(&mut self, offset: u64, bytes: &[u8]) {
        let is_reset = offset == u64::from(reg::VIRTIO_MMIO_STATUS) && *bytes == [0; 4];
        if is_reset {
            // What it wrote before was allowed before.
            self.check();
        }
        self.device.write(offset, bytes);
        if is_reset {
            let memory = self.memory.as_mut().expect("until it is dropped");
            self.allowed.forget(memory);
        }
    }

    pub(crate) fn is_broken(&mut self) -> bool {
        self.get(reg::VIRTIO_MMIO_STATUS) & status::VIRTIO_CONFIG_S_NEEDS_RESET != 0
    }

    fn is_running(&mut self) -> bool {
        self.get(reg::VIRTIO_MMIO_STATUS) & status::VIRTIO_CONFIG_S_DRIVER_OK != 0
    }

    /// A reset and all steps as the specification has them, with these features and queues.
    pub(crate) fn start(&mut self, features: u64, queues: u32) {
        self.set(reg::VIRTIO_MMIO_STATUS, 0);
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
            let wanted = [features, features >> 32][usize::from(half == 1)] & u64::from(u32::MAX);
            let wanted = u32::try_from(wanted).expect("32 bits");
            self.set(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            // Version 1, which is among the upper ones, is none to be chosen.
            self.set(reg::VIRTIO_MMIO_DRIVER_FEATURES, offered & (wanted | half));
        }
        steps |= status::VIRTIO_CONFIG_S_FEATURES_OK;
        self.set(reg::VIRTIO_MMIO_STATUS, steps);
        for queue in 0..self.queues() {
            if queues & 1 << queue != 0 {
                self.set_queue(queue);
            }
        }
        steps |= status::VIRTIO_CONFIG_S_DRIVER_OK;
        self.set(reg::VIRTIO_MMIO_STATUS, steps);
    }

    pub(crate) fn queues(&self) -> u32 {
        u32::try_from(self.available.len()).expect("a few")
    }

    /// Where the rings of a queue lie: descriptors, available, used.
    fn place(queue: u32) -> [u64; 3] {
        let base = RINGS + u64::from(queue) * STRIDE;
        [base, base + 0x4000, base + 0x5000]
    }

    fn set_queue(&mut self, queue: u32) {
        let place = Driver::place(queue);
        self.memory().write(place[1], &[0; 4]);
        self.memory().write(place[2], &[0; 4]);
        self.set(reg::VIRTIO_MMIO_QUEUE_SEL, queue);
        let size = self.get(reg::VIRTIO_MMIO_QUEUE_NUM_MAX);
        self.set(reg::VIRTIO_MMIO_QUEUE_NUM, size);
        let registers = [
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW,
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
            reg::VIRTIO_MMIO_QUEUE_USED_LOW,
        ];
        for (register, at) in registers.into_iter().zip(place) {
            self.set(register, u32::try_from(at).expect("it is low"));
        }
        self.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        let queue = usize::try_from(queue).expect("a few");
        (self.available[queue], self.next[queue]) = (0, 0);
    }

    /// Writes to memory as a driver does that knows nothing of rings.
    pub(crate) fn poke(&mut self, at: u64, bytes: &[u8]) {
        let Some(range) = within(at, bytes.len()) else {
            return;
        };
        self.allowed.overwritten(&range, &self.device.rings());
        self.memory().write(at, bytes);
    }

    /// Writes a descriptor: address, length, flags, next.
    pub(crate) fn describe(&mut self, at: u64, parts: (u64, u32, u16, u16)) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&parts.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&parts.1.to_le_bytes());
        bytes[12..14].copy_from_slice(&parts.2.to_le_bytes());
        bytes[14..].copy_from_slice(&parts.3.to_le_bytes());
        self.poke(at, &bytes);
    }

    /// Where a descriptor of a queue that keeps to the rules lies.
    pub(crate) fn descriptor(queue: u32, number: u16) -> u64 {
        Driver::place(queue)[0] + u64::from(number) * DESCRIPTOR
    }

    fn size(&self, queue: u32) -> u16 {
        let queue = usize::try_from(queue).expect("a few");
        self.device.rings()[queue].size.max(1)
    }

    /// Puts a chain into a queue: what it says, cut into parts, then room, a part each. Nothing is wrong with it.
    pub(crate) fn put(&mut self, queue: u32, said: &[u8], cuts: usize, room: &[u32], indirect: bool) {
        let mut parts = Vec::new();
        for part in said.chunks(said.len().div_ceil(cuts).max(1)) {
            let at = self.room(part.len());
            self.memory().write(at, part);
            parts.push((at, u32::try_from(part.len()).expect("as long as an input"), 0));
        }
        for length in room {
            let at = self.room(usize::try_from(*length).expect("a 64-bit host"));
            parts.push((at, *length, WRITE));
        }
        let number = usize::try_from(queue).expect("a few");
        let size = self.size(queue);
        let head = self.next[number] % size;
        let count = u16::try_from(parts.len()).expect("a few").max(1);
        let table = if indirect {
            self.room(usize::from(count) * 16)
        } else {
            0
        };
        for (place, (at, length, flags)) in (0_u16..).zip(&parts) {
            let more = if place + 1 < count { NEXT } else { 0 };
            if indirect {
                let slot = table + u64::from(place) * DESCRIPTOR;
                self.describe(slot, (*at, *length, flags | more, place + 1));
            } else {
                let (slot, next) = ((head + place) % size, (head + place + 1) % size);
                self.describe(
                    Driver::descriptor(queue, slot),
                    (*at, *length, flags | more, next),
                );
            }
        }
        if indirect {
            let length = u32::from(count) * 16;
            self.describe(Driver::descriptor(queue, head), (table, length, INDIRECT, 0));
        }
        self.next[number] = (head + if indirect { 1 } else { count }) % size;
        self.offer(queue, head);
    }

    /// A place for a buffer; they follow one another, and begin again at the end of memory.
    fn room(&mut self, length: usize) -> u64 {
        if within(self.buffer, length).is_none() {
            self.buffer = BUFFERS;
        }
        let at = self.buffer;
        self.buffer += length.min(MEMORY) as u64;
        at
    }

    /// The next buffer begins so many bytes later.
    pub(crate) fn skip(&mut self, bytes: u16) {
        self.buffer += u64::from(bytes);
    }

    /// Makes the chain that begins at `head` available.
    pub(crate) fn offer(&mut self, queue: u32, head: u16) {
        let number = usize::try_from(queue).expect("a few");
        let ring = Driver::place(queue)[1];
        let slot = u64::from(self.available[number] % self.size(queue));
        self.available[number] = self.available[number].wrapping_add(1);
        let index = self.available[number];
        self.poke(ring + 4 + 2 * slot, &head.to_le_bytes());
        self.poke(ring + 2, &index.to_le_bytes());
    }

    /// Says that there is something in a queue.
    pub(crate) fn ring(&mut self, queue: u32) {
        self.set(reg::VIRTIO_MMIO_QUEUE_NOTIFY, queue);
    }

    /// Lets the device work until it rests.
    pub(crate) fn run(&mut self) {
        if self.is_running() {
            let memory = self.memory.as_mut().expect("until it is dropped");
            self.allowed.extend(&self.device.rings(), memory);
        }
        let rests = self.device.run(TURNS_MAX);
        assert!(
            rests || self.allowed.is_unknown,
            "the event loop does not come to rest"
        );
    }

    /// Nothing was written but what was allowed.
    pub(crate) fn check(&mut self) {
        let memory = self.memory.as_mut().expect("until it is dropped");
        self.allowed.check(memory);
    }

    /// Every chain of a queue that was offered is used, or the device says that it needs a reset.
    pub(crate) fn check_used(&mut self, queue: u32) {
        self.ring(queue);
        self.run();
        let rings = self.device.rings()[usize::try_from(queue).expect("a few")];
        if !rings.ready || self.allowed.is_unknown || self.is_broken() || !self.is_running() {
            return;
        }
        let available = u16::from_le_bytes(self.memory().read(rings.available + 2));
        let used = u16::from_le_bytes(self.memory().read(rings.used + 2));
        // A page that was taken away holds zeroes.
        let vanished = self.allowed.pages_vanish && used == 0;
        assert!(
            available == 0 || available == used || vanished,
            "queue {queue}: {available} chains were offered, and {used} are used"
        );
    }

    /// Head and length of the chain that was used last, and how many were, of a queue that keeps to the rules.
    pub(crate) fn used(&mut self, queue: u32) -> (u16, u32) {
        let ring = Driver::place(queue)[2];
        let count = u16::from_le_bytes(self.memory().read(ring + 2));
        let slot = u64::from(count.wrapping_sub(1) % self.size(queue));
        (
            count,
            u32::from_le_bytes(self.memory().read(ring + 4 + 8 * slot + 4)),
        )
    }

    /// A number of a queue of this device.
    pub(crate) fn any_queue(&self, input: &mut Input<'_>) -> u32 {
        u32::try_from(input.below(self.available.len())).expect("a few")
    }
}
