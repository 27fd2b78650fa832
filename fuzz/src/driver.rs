//! A guest's driver that does what an input tells it, right or wrong, and knows what it allowed its device to write.

use std::cell::RefCell;
use std::ops::Range;

use berth_vmm::fuzzing::{Rings, VirtioDevice};
use virtio_bindings::virtio_config as status;
use virtio_bindings::virtio_mmio as reg;

use crate::input::Input;
use crate::memory::{MEMORY, Memory, within};

/// Flags of a descriptor.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Bytes of one.
const DESCRIPTOR: u64 = 16;

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
    /// What the device may write to: buffers and used rings, since the last reset.
    writable: Vec<Range<usize>>,
    /// What it may write lies over what it reads: nobody can say any more what it may write.
    wild: bool,
    /// The device takes whole pages away.
    pub(crate) pages_vanish: bool,
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
            writable: Vec::new(),
            wild: false,
            pages_vanish: false,
        }
    }

    pub(crate) fn memory(&mut self) -> &mut Memory {
        self.memory.as_mut().expect("until it is dropped")
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
            self.forget();
        }
    }

    /// After a reset nothing of before may be written to. What is in memory now is what should be.
    fn forget(&mut self) {
        let written = std::mem::take(&mut self.writable);
        self.memory().accept(&written);
        if std::mem::take(&mut self.wild) || self.pages_vanish {
            self.memory().accept(std::slice::from_ref(&(0..MEMORY)));
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
        for rings in self.device.rings() {
            // What the device said there counts no more.
            self.wild |= rings.ready && overlap(&range, &used_ring(&rings));
        }
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
        self.allow();
        let rests = self.device.run(TURNS_MAX);
        assert!(rests || self.wild, "the event loop does not come to rest");
    }

    /// What the device may write now, it may write until the next reset: it may have taken chains and kept them.
    fn allow(&mut self) {
        if self.wild || !self.is_running() {
            return;
        }
        let rings: Vec<Rings> = self
            .device
            .rings()
            .into_iter()
            .filter(|rings| rings.ready)
            .collect();
        self.memory().look();
        // What it reads and nothing of a buffer's may change.
        let mut read = Vec::new();
        let mut buffers = Vec::new();
        for rings in &rings {
            self.writable.push(used_ring(rings));
            let available = 6 + 2 * usize::from(rings.size);
            read.extend(within(rings.descriptors, usize::from(rings.size) * 16));
            read.extend(within(rings.available, available));
            self.walk(rings, &mut read, &mut buffers);
        }
        let used: Vec<_> = rings.iter().map(used_ring).collect();
        for (number, ring) in used.iter().enumerate() {
            let others = used[..number].iter().chain(&read).chain(&buffers);
            self.wild |= others.into_iter().any(|other| overlap(ring, other));
        }
        read.sort_unstable_by_key(|range| range.start);
        for buffer in &buffers {
            self.wild |= read.iter().any(|other| overlap(buffer, other));
        }
        self.writable.append(&mut buffers);
        self.writable
            .sort_unstable_by_key(|range| (range.start, range.end));
        self.writable.dedup();
    }

    /// Every chain of a queue, as the specification reads it.
    fn walk(&mut self, rings: &Rings, read: &mut Vec<Range<usize>>, buffers: &mut Vec<Range<usize>>) {
        let mut seen = vec![false; usize::from(rings.size)];
        for slot in 0..u64::from(rings.size) {
            let head = u16::from_le_bytes(self.memory().seen(rings.available.wrapping_add(4 + 2 * slot)));
            match seen.get_mut(usize::from(head)) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            self.walk_chain((rings.descriptors, rings.size.into()), head, read, buffers);
        }
    }

    fn walk_chain(
        &mut self,
        (table, size): (u64, u32),
        head: u16,
        read: &mut Vec<Range<usize>>,
        buffers: &mut Vec<Range<usize>>,
    ) {
        let (mut table, mut size, mut number) = (table, size, head);
        let mut nested = false;
        // A chain is no longer than its table, and one table may follow on another.
        for _ in 0..2048 {
            if u32::from(number) >= size {
                return;
            }
            let bytes: [u8; 16] = self
                .memory()
                .seen(table.wrapping_add(u64::from(number) * DESCRIPTOR));
            let at = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
            let length = u32::from_le_bytes(bytes[8..12].try_into().expect("4 bytes"));
            let flags = u16::from_le_bytes(bytes[12..14].try_into().expect("2 bytes"));
            let next = u16::from_le_bytes(bytes[14..].try_into().expect("2 bytes"));
            if flags & INDIRECT != 0 {
                if nested {
                    return;
                }
                read.extend(within(at, usize::try_from(length).expect("a 64-bit host")));
                (table, size, number, nested) = (at, length / 16, 0, true);
                continue;
            }
            if flags & WRITE != 0 {
                buffers.extend(within(at, usize::try_from(length).expect("a 64-bit host")));
            }
            if flags & NEXT == 0 {
                return;
            }
            number = next;
        }
    }

    /// Nothing was written but what was allowed.
    pub(crate) fn check(&mut self) {
        if !self.wild {
            let pages_vanish = self.pages_vanish;
            let mut writable = std::mem::take(&mut self.writable);
            self.memory().check(&mut writable, pages_vanish);
            self.writable = writable;
        }
    }

    /// Every chain of a queue that was offered is used, or the device says that it needs a reset.
    pub(crate) fn check_used(&mut self, queue: u32) {
        self.ring(queue);
        self.run();
        let rings = self.device.rings()[usize::try_from(queue).expect("a few")];
        if !rings.ready || self.wild || self.is_broken() || !self.is_running() {
            return;
        }
        let available = u16::from_le_bytes(self.memory().read(rings.available + 2));
        let used = u16::from_le_bytes(self.memory().read(rings.used + 2));
        assert!(
            available == 0 || available == used,
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

fn used_ring(rings: &Rings) -> Range<usize> {
    within(rings.used, 6 + 8 * usize::from(rings.size)).unwrap_or(MEMORY..MEMORY)
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}
