//! A descriptor chain as a device uses it: bytes the driver wrote, then room for the device's answer.
//!
//! Each descriptor is read from guest memory once; what is checked here is what is used (virtio 1.2 §2.7.5). Everything a
//! chain can do wrong is refused in [`Chain::read_from`]: loops, descriptors that point nowhere or outside of memory,
//! readable ones behind writable ones, more bytes than the specification allows.

use virtio_queue::{DescriptorChain, desc::split::Descriptor};
use vm_memory::bitmap::BS;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// A guest broke the rules of its queues: the device stops until it is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Part of guest memory as a device may touch it.
pub(crate) type Slice<'a> = VolatileSlice<'a, BS<'a, ()>>;

/// A range of guest memory, checked to be all of it memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    at: GuestAddress,
    length: usize,
}

/// A chain that was found in order.
#[derive(Debug)]
pub(crate) struct Chain {
    /// What goes to the used ring when it is done.
    pub(crate) head: u16,
    readable: Ranges,
    writable: Ranges,
}

impl Chain {
    /// Reads and checks all descriptors, of which there are at most `longest`: the size of the queue, for chains that lie in a
    /// table of their own too (virtio 1.2 §2.7.5.3.1).
    pub(crate) fn read_from(
        memory: &GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
        longest: u16,
    ) -> Result<Chain, Malformed> {
        let mut found = Chain {
            head: chain.head_index(),
            readable: Ranges::default(),
            writable: Ranges::default(),
        };
        let mut last: Option<Descriptor> = None;
        for (before, descriptor) in chain.enumerate() {
            if before == usize::from(longest) {
                return Err(Malformed("a descriptor chain is longer than its queue"));
            }
            let length = usize::try_from(descriptor.len()).expect("a 64-bit host");
            let range = Range {
                at: descriptor.addr(),
                length,
            };
            if !GuestMemoryBackend::check_range(memory, range.at, length) {
                return Err(Malformed("a descriptor points outside of memory"));
            }
            if descriptor.is_write_only() {
                found.writable.push(range);
            } else if found.writable.is_empty() {
                found.readable.push(range);
            } else {
                return Err(Malformed("a readable descriptor follows a writable one"));
            }
            last = Some(descriptor);
        }
        // The iterator ends without a word at a loop, an index outside the table, a bad indirect table or too many bytes.
        match last {
            None => Err(Malformed("a descriptor chain begins nowhere")),
            Some(last) if last.has_next() => Err(Malformed("a descriptor chain has no end")),
            Some(_) => Ok(found),
        }
    }

    /// Bytes from the driver that were not taken yet.
    pub(crate) fn readable(&self) -> usize {
        self.readable.length
    }

    /// Room for bytes to the driver that was not taken yet.
    pub(crate) fn writable(&self) -> usize {
        self.writable.length
    }

    /// Takes the next bytes from the driver into `buffer`, whole or not at all.
    pub(crate) fn read(&mut self, memory: &GuestMemoryMmap, buffer: &mut [u8]) -> Result<(), Malformed> {
        let ranges = self
            .readable
            .take(buffer.len())
            .ok_or(Malformed("a request is too short"))?;
        let mut done = 0;
        for range in ranges {
            memory
                .read_slice(&mut buffer[done..done + range.length], range.at)
                .map_err(|_| Malformed("a descriptor points outside of memory"))?;
            done += range.length;
        }
        Ok(())
    }

    /// Puts `bytes` into the next room for the driver, whole or not at all.
    pub(crate) fn write(&mut self, memory: &GuestMemoryMmap, bytes: &[u8]) -> Result<(), Malformed> {
        let ranges = self
            .writable
            .take(bytes.len())
            .ok_or(Malformed("there is no room for an answer"))?;
        let mut done = 0;
        for range in ranges {
            memory
                .write_slice(&bytes[done..done + range.length], range.at)
                .map_err(|_| Malformed("a descriptor points outside of memory"))?;
            done += range.length;
        }
        Ok(())
    }

    /// Takes the next `length` bytes from the driver, where they lie.
    pub(crate) fn take_readable<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        length: usize,
    ) -> Result<Vec<Slice<'m>>, Malformed> {
        let ranges = self
            .readable
            .take(length)
            .ok_or(Malformed("a request is too short"))?;
        slices(memory, &ranges)
    }

    /// All room for bytes to the driver that was not taken yet, where it lies, to the end of `slices`. It is not taken.
    pub(crate) fn writable_slices<'m>(
        &self,
        memory: &'m GuestMemoryMmap,
        slices: &mut Vec<Slice<'m>>,
    ) -> Result<(), Malformed> {
        add_slices(memory, &self.writable.ranges, slices)
    }

    /// All bytes from the driver that were not taken yet, where they lie, to the end of `slices`. They are not taken.
    pub(crate) fn readable_slices<'m>(
        &self,
        memory: &'m GuestMemoryMmap,
        slices: &mut Vec<Slice<'m>>,
    ) -> Result<(), Malformed> {
        add_slices(memory, &self.readable.ranges, slices)
    }

    /// Into how many ranges the room for bytes to the driver is cut.
    pub(crate) fn writable_parts(&self) -> usize {
        self.writable.ranges.len()
    }

    /// Takes room for `length` bytes to the driver, where it lies.
    pub(crate) fn take_writable<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        length: usize,
    ) -> Result<Vec<Slice<'m>>, Malformed> {
        let ranges = self
            .writable
            .take(length)
            .ok_or(Malformed("there is no room for an answer"))?;
        slices(memory, &ranges)
    }
}

fn slices<'m>(memory: &'m GuestMemoryMmap, ranges: &[Range]) -> Result<Vec<Slice<'m>>, Malformed> {
    let mut found = Vec::with_capacity(ranges.len());
    add_slices(memory, ranges, &mut found)?;
    Ok(found)
}

fn add_slices<'m, 'r>(
    memory: &'m GuestMemoryMmap,
    ranges: impl IntoIterator<Item = &'r Range>,
    slices: &mut Vec<Slice<'m>>,
) -> Result<(), Malformed> {
    for range in ranges {
        // One range may lie across two regions, where they touch.
        for slice in GuestMemoryBackend::get_slices(memory, range.at, range.length) {
            slices.push(slice.map_err(|_| Malformed("a descriptor points outside of memory"))?);
        }
    }
    Ok(())
}

/// Ranges one behind the other, taken from the front.
#[derive(Debug, Default)]
struct Ranges {
    /// Last first, to take from.
    ranges: std::collections::VecDeque<Range>,
    /// Of all together. At most 2^32: the queue's iterator ends there.
    length: usize,
}

impl Ranges {
    fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    fn push(&mut self, range: Range) {
        self.length += range.length;
        self.ranges.push_back(range);
    }

    /// `None`, with nothing taken, when there are fewer bytes.
    fn take(&mut self, length: usize) -> Option<Vec<Range>> {
        if length > self.length {
            return None;
        }
        self.length -= length;
        let mut left = length;
        let mut taken = Vec::new();
        while left > 0 {
            let front = self.ranges.front_mut().expect("the length is that of all ranges");
            if front.length <= left {
                left -= front.length;
                taken.extend(self.ranges.pop_front());
            } else {
                taken.push(Range {
                    at: front.at,
                    length: left,
                });
                front.at.0 += left as u64;
                front.length -= left;
                left = 0;
            }
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// As if bytes were taken one by one, each from its own address.
        #[test]
        fn ranges_give_their_bytes_in_order(
            lengths in prop::collection::vec((0_u64..1 << 20, 0_usize..20), 0..12),
            takes in prop::collection::vec(0_usize..60, 0..12),
        ) {
            let mut ranges = Ranges::default();
            let mut bytes = std::collections::VecDeque::new();
            for (at, length) in lengths {
                ranges.push(Range { at: GuestAddress(at), length });
                bytes.extend((at..).take(length));
            }
            for wanted in takes {
                let before = ranges.length;
                prop_assert_eq!(before, bytes.len());
                match ranges.take(wanted) {
                    None => prop_assert!(wanted > before && ranges.length == before),
                    Some(taken) => {
                        let got = taken.iter().flat_map(|range| (range.at.0..).take(range.length));
                        prop_assert_eq!(got.collect::<Vec<_>>(), bytes.drain(..wanted).collect::<Vec<_>>());
                    }
                }
            }
        }
    }
}
