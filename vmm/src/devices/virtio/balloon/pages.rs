//! Guest memory that the host takes back.
//!
//! What is dropped of a map of nothing reads as zeroes when it comes back. What is dropped of a snapshot's file would read as the
//! file: the past, which neither guest nor specification expect. So such pages get a map of nothing in their place.
#![allow(unsafe_code)] // madvise(2) and mmap(2) change what memory holds

use std::collections::BTreeMap;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::devices::virtio::chain::{Malformed, Slice};
use crate::memory;

/// Bytes in a page of the balloon, whatever pages host and guest have (virtio 1.2 §5.5.6).
pub(super) const PAGE: usize = 4096;

/// The most maps a guest can make of its memory; the kernel has 65530 for a process. What is given up then stays as it is.
const REPLACED_MAX: usize = 16 << 10;

/// Takes pages back.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    /// Ranges of a snapshot's memory that are a file's no more: first byte → first behind.
    replaced: BTreeMap<usize, usize>,
}

impl Reclaim {
    /// Takes pages back, by their numbers, in as few calls as they allow. They are put into order.
    ///
    /// # Errors
    ///
    /// When one of them is no memory; others may be gone by then.
    pub(super) fn take_back(
        &mut self,
        memory: &GuestMemoryMmap,
        pages: &mut Vec<u32>,
    ) -> Result<(), Malformed> {
        pages.sort_unstable();
        pages.dedup();
        for run in pages.chunk_by(|page, next| page + 1 == *next) {
            let at = GuestAddress(u64::from(run[0]) * PAGE as u64);
            for slice in GuestMemoryBackend::get_slices(memory, at, run.len() * PAGE) {
                let slice = slice.map_err(|_| Malformed("a page of the balloon is no memory"))?;
                self.give_up(memory, &slice);
            }
        }
        Ok(())
    }

    /// Gives the host back the whole pages of a slice of `memory`: they read as zeroes, and take memory again when they are
    /// next written. A page that the kernel keeps, because it is locked, is as it was.
    pub(super) fn give_up(&mut self, memory: &GuestMemoryMmap, slice: &Slice<'_>) {
        let guard = slice.ptr_guard_mut();
        let first = guard.as_ptr();
        let skipped = first.align_offset(PAGE);
        let Some(length) = guard.len().checked_sub(skipped) else {
            return;
        };
        let length = length - length % PAGE;
        if length == 0 {
            return;
        }
        let begin = first as usize + skipped;
        let replace = memory::is_of_file(memory) && !self.is_replaced(begin, begin + length);
        if !replace {
            // SAFETY: the range lies within a slice that vm-memory checked to be mapped guest memory, of which there are no
            // Rust references; the guest, whose memory it is, said that it does not need what is there.
            let _ = unsafe { madvise(first.add(skipped).cast(), length, Advice::LinuxDontNeed) };
            return;
        }
        if self.replaced.len() == REPLACED_MAX {
            return;
        }
        // SAFETY: the same range, which stays mapped, as readable and as writable as it was: whoever holds its address finds
        // zeroes there. It is unmapped with the map it lies in.
        let done = unsafe {
            mmap_anonymous(
                first.add(skipped).cast(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
            )
        };
        if done.is_ok() {
            self.replace(begin, begin + length);
        }
    }

    fn is_replaced(&self, begin: usize, end: usize) -> bool {
        let before = self.replaced.range(..=begin).next_back();
        before.is_some_and(|(_, behind)| *behind >= end)
    }

    /// Remembers a range, as one with those it touches, as the kernel does.
    fn replace(&mut self, mut begin: usize, mut end: usize) {
        while let Some((first, behind)) = self.replaced.range(..=end).next_back()
            && *behind >= begin
        {
            let (first, behind) = (*first, *behind);
            self.replaced.remove(&first);
            (begin, end) = (begin.min(first), end.max(behind));
        }
        self.replaced.insert(begin, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// As if each byte had been marked on its own.
        #[test]
        fn ranges_are_what_was_put_into_them(ranges in prop::collection::vec((0_usize..60, 1_usize..8), 0..40)) {
            let mut reclaim = Reclaim::default();
            let mut marked = [false; 80];
            for (begin, length) in ranges {
                reclaim.replace(begin, begin + length);
                marked[begin..begin + length].fill(true);
            }
            for (begin, end) in (0..80).flat_map(|begin| (begin + 1..80).map(move |end| (begin, end))) {
                let all = marked[begin..end].iter().all(|one| *one);
                prop_assert_eq!(reclaim.is_replaced(begin, end), all, "{} to {}", begin, end);
            }
            let runs = marked.chunk_by(|one, next| one == next).filter(|run| run[0]).count();
            prop_assert_eq!(reclaim.replaced.len(), runs);
        }
    }
}
