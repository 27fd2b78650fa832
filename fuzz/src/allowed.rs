//! What a device may write to, as the specification and nobody's code says (virtio 1.2 §2.7).

use std::collections::BTreeSet;
use std::ops::Range;

use berth_vmm::fuzzing::Rings;

use crate::driver::{DESCRIPTOR, INDIRECT, NEXT, WRITE};
use crate::memory::{MEMORY, Memory, within};

/// Descriptors that are followed: no chain is longer than its table, and one table may follow on another.
const CHAIN_MAX: usize = 2048;
/// Bytes of a list of pages, of which a balloon takes no longer ones.
const NAMED_MAX: usize = 4096;
/// Bytes of a page of the balloon.
pub(crate) const PAGE: usize = 4096;

/// Buffers and used rings, since the last reset: the device may have taken chains and kept them.
#[derive(Default)]
pub(crate) struct Allowed {
    writable: Vec<Range<usize>>,
    /// What it may write lies over what it reads, or its state is forged: nobody can say what it may write, until a reset.
    pub(crate) is_unknown: bool,
    /// The device takes the pages away that its first queue names.
    pub(crate) pages_vanish: bool,
    /// Those it may have taken, by their numbers; it may have taken a buffer's whole pages too.
    vanished: BTreeSet<usize>,
}

/// What was found in queues.
#[derive(Default)]
struct Found {
    /// Descriptors and available rings.
    read: Vec<Range<usize>>,
    /// Buffers that are writable.
    buffers: Vec<Range<usize>>,
    /// Buffers that are not, of one chain.
    said: Vec<Range<usize>>,
}

impl Allowed {
    /// Adds what the queues allow as they are now.
    pub(crate) fn extend(&mut self, rings: &[Rings], memory: &mut Memory) {
        if self.is_unknown {
            return;
        }
        memory.look();
        let mut found = Found::default();
        let ready = rings.iter().filter(|rings| rings.ready);
        for (queue, rings) in rings.iter().enumerate().filter(|(_, rings)| rings.ready) {
            let available = 6 + 2 * usize::from(rings.size);
            found
                .read
                .extend(within(rings.descriptors, usize::from(rings.size) * 16));
            found.read.extend(within(rings.available, available));
            self.walk(rings, memory, &mut found, self.pages_vanish && queue == 0);
        }
        let Found {
            read, mut buffers, ..
        } = found;
        let mut used: Vec<Range<usize>> = ready.map(used_ring).collect();
        for (number, ring) in used.iter().enumerate() {
            let mut others = used[..number].iter().chain(&read).chain(&buffers);
            self.is_unknown |= others.any(|other| overlap(ring, other));
        }
        for buffer in &buffers {
            self.is_unknown |= read.iter().any(|other| overlap(buffer, other));
        }
        self.writable.append(&mut used);
        self.writable.append(&mut buffers);
        self.writable
            .sort_unstable_by_key(|range| (range.start, range.end));
        self.writable.dedup();
    }

    /// Every chain of a queue, which may name pages.
    fn walk(&mut self, rings: &Rings, memory: &Memory, found: &mut Found, names_pages: bool) {
        let mut seen = vec![false; usize::from(rings.size)];
        let at = |slot: u64| rings.available.wrapping_add(4 + 2 * slot);
        let slots = 0..u64::from(rings.size);
        let heads = slots.map(|slot| u16::from_le_bytes(memory.seen(at(slot))));
        // What a ring says whose page is gone.
        let vanished = self.pages_vanish.then_some(0);
        for head in heads.chain(vanished) {
            match seen.get_mut(usize::from(head)) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            found.chain(rings, head, memory);
            let said = std::mem::take(&mut found.said);
            if names_pages {
                self.name_pages(said, memory);
            }
        }
    }

    fn name_pages(&mut self, said: Vec<Range<usize>>, memory: &Memory) {
        let places: Vec<usize> = said.into_iter().flatten().take(NAMED_MAX).collect();
        for number in places.chunks_exact(4) {
            let bytes = [0, 1, 2, 3].map(|byte| memory.seen::<1>(number[byte] as u64)[0]);
            if let Ok(page) = usize::try_from(u32::from_le_bytes(bytes)) {
                self.vanished.insert(page);
            }
            // Half of it may be gone when it is read.
            self.is_unknown |= number.iter().any(|place| place / PAGE != number[0] / PAGE);
        }
        // And so may all of a list.
        self.vanished.insert(0);
    }

    /// The driver writes to a range itself: what the device said there counts no more.
    pub(crate) fn overwritten(&mut self, range: &Range<usize>, rings: &[Rings]) {
        let mut ready = rings.iter().filter(|rings| rings.ready);
        self.is_unknown |= ready.any(|rings| overlap(range, &used_ring(rings)));
    }

    /// # Panics
    ///
    /// When something else was written.
    pub(crate) fn check(&mut self, memory: &mut Memory) {
        if !self.is_unknown {
            memory.check(&mut self.writable, &self.vanished);
        }
    }

    /// After a reset nothing of before may be written to. What is in memory now is what should be.
    pub(crate) fn forget(&mut self, memory: &mut Memory) {
        self.vanished.clear();
        memory.accept(&std::mem::take(&mut self.writable));
        if std::mem::take(&mut self.is_unknown) || self.pages_vanish {
            memory.accept(std::slice::from_ref(&(0..MEMORY)));
        }
    }
}

impl Found {
    fn chain(&mut self, rings: &Rings, head: u16, memory: &Memory) {
        let (mut table, mut size, mut number) = (rings.descriptors, u32::from(rings.size), head);
        let mut nested = false;
        for _ in 0..CHAIN_MAX {
            if u32::from(number) >= size {
                return;
            }
            let place = table.wrapping_add(u64::from(number) * DESCRIPTOR);
            let bytes: [u8; 16] = memory.seen(place);
            let at = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
            let length = u32::from_le_bytes(bytes[8..12].try_into().expect("4 bytes"));
            let flags = u16::from_le_bytes(bytes[12..14].try_into().expect("2 bytes"));
            let range = within(at, usize::try_from(length).expect("a 64-bit host"));
            if flags & INDIRECT != 0 {
                if nested {
                    return;
                }
                self.read.extend(range);
                (table, size, number, nested) = (at, length / 16, 0, true);
                continue;
            }
            if flags & WRITE != 0 {
                self.buffers.extend(range);
            } else {
                self.said.extend(range);
            }
            if flags & NEXT == 0 {
                return;
            }
            number = u16::from_le_bytes(bytes[14..].try_into().expect("2 bytes"));
        }
    }
}

fn used_ring(rings: &Rings) -> Range<usize> {
    within(rings.used, 6 + 8 * usize::from(rings.size)).unwrap_or(MEMORY..MEMORY)
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}
