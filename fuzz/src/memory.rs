//! A guest's memory whose every byte is known, so that a byte a device had no business with shows.
#![allow(unsafe_code)] // guard pages around what is mapped

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::allowed::PAGE;

/// Bytes of memory, in two regions that touch for the guest alone.
pub(crate) const MEMORY: usize = 512 << 10;
/// Where the second begins.
const BORDER: usize = 0x5_0000;
/// Nothing is mapped for so many bytes before and behind a region.
const GUARD: usize = 1 << 20;

/// Guest memory, and what should be in it.
pub(crate) struct Memory {
    pub(crate) guest: GuestMemoryMmap,
    expected: Vec<u8>,
    found: Vec<u8>,
    /// What was in it at first.
    pattern: Vec<u8>,
}

impl Memory {
    /// Memory of nothing, or of a file, as after a restore.
    pub(crate) fn new(of_file: bool) -> Memory {
        // No byte is zero, and neighbours differ.
        let pattern: Vec<u8> = (1..=251_u8).cycle().take(MEMORY).collect();
        Memory {
            guest: guest(&[0, BORDER, MEMORY], of_file),
            expected: pattern.clone(),
            found: vec![0; MEMORY],
            pattern,
        }
    }

    /// As it was at first.
    pub(crate) fn clear(&mut self) {
        self.expected.copy_from_slice(&self.pattern);
        self.guest
            .write_slice(&self.pattern, GuestAddress(0))
            .expect("all of it");
    }

    /// The guest writes; what would lie outside is not written.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        let Some(range) = within(at, bytes.len()) else {
            return;
        };
        self.expected[range].copy_from_slice(bytes);
        self.guest
            .write_slice(bytes, GuestAddress(at))
            .expect("it is inside");
    }

    /// What the guest reads; zeroes outside.
    pub(crate) fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        if within(at, N).is_some() {
            self.guest
                .read_slice(&mut bytes, GuestAddress(at))
                .expect("it is inside");
        }
        bytes
    }

    /// Reads all of it, for [`Memory::seen`].
    pub(crate) fn look(&mut self) {
        self.guest
            .read_slice(&mut self.found, GuestAddress(0))
            .expect("all of it");
    }

    /// What was there at the last look; zeroes outside.
    pub(crate) fn seen<const N: usize>(&self, at: u64) -> [u8; N] {
        let bytes = within(at, N).map(|range| &self.found[range]);
        bytes.map_or([0; N], |bytes| bytes.try_into().expect("as many"))
    }

    /// What is there now is what should be.
    pub(crate) fn accept(&mut self, ranges: &[Range<usize>]) {
        for range in ranges {
            let at = GuestAddress(range.start as u64);
            let expected = &mut self.expected[range.clone()];
            self.guest.read_slice(expected, at).expect("it is inside");
        }
    }

    /// # Panics
    ///
    /// When a byte that is in none of the ranges, which may overlap, is not what the guest wrote there. On a page
    /// that may have `vanished`, a zero is what is left; no byte is one at first.
    pub(crate) fn check(&mut self, writable: &mut Vec<Range<usize>>, vanished: &BTreeSet<usize>) {
        self.look();
        writable.push(MEMORY..MEMORY);
        writable.sort_unstable_by_key(|range| range.start);
        let mut from = 0;
        for range in writable.iter() {
            if range.start > from {
                self.check_range(from..range.start, vanished);
            }
            from = from.max(range.end);
        }
    }

    fn check_range(&self, range: Range<usize>, vanished: &BTreeSet<usize>) {
        let mut from = range.start;
        while from < range.end {
            let to = (from / PAGE * PAGE + PAGE).min(range.end);
            let (found, expected) = (&self.found[from..to], &self.expected[from..to]);
            // All of it at once, for it is most often as it should be.
            if found != expected {
                let zeroes = vanished.contains(&(from / PAGE));
                for ((at, found), expected) in (from..).zip(found).zip(expected) {
                    assert!(
                        found == expected || *found == 0 && zeroes,
                        "byte {at:#x} is {found:#04x} instead of {expected:#04x}: the device wrote where it was not allowed to"
                    );
                }
            }
            from = to;
        }
    }
}

/// The bytes of a range of memory, if all of it is.
pub(crate) fn within(at: u64, length: usize) -> Option<Range<usize>> {
    let at = usize::try_from(at).ok()?;
    let end = at.checked_add(length)?;
    (end <= MEMORY).then_some(at..end)
}

/// Memory with these borders between regions, of nothing or of a file, with nothing mapped around them.
pub(crate) fn guest(borders: &[usize], of_file: bool) -> GuestMemoryMmap {
    let file = of_file.then(|| {
        let file =
            rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory");
        let length = borders.last().copied().unwrap_or_default();
        rustix::fs::ftruncate(&file, length as u64).expect("room");
        Arc::new(File::from(file))
    });
    let regions = borders.windows(2).map(|region| {
        let begin = region[0] as u64;
        let file = file
            .as_ref()
            .map(|file| FileOffset::from_arc(file.clone(), begin));
        let mapped = guarded(region[1] - region[0], file);
        GuestRegionMmap::new(mapped, GuestAddress(begin)).expect("it ends before addresses do")
    });
    GuestMemoryMmap::from_regions(regions.collect()).expect("they do not overlap")
}

/// Maps so many bytes with nothing around them, for as long as the process lives.
fn guarded(length: usize, file: Option<FileOffset>) -> vm_memory::MmapRegion {
    let whole = GUARD + length + GUARD;
    // SAFETY: a new map at an address of the kernel's choice.
    let reserved = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            whole,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    };
    let reserved = reserved.expect("addresses").cast::<u8>();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the middle of what was just mapped, of which nobody else knows.
    let at = unsafe {
        let at = reserved.add(GUARD);
        match &file {
            None => mprotect(at.cast(), length, MprotectFlags::READ | MprotectFlags::WRITE).expect("memory"),
            Some(file) => {
                let mapped = rustix::mm::mmap(
                    at.cast(),
                    length,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::FIXED,
                    file.file(),
                    file.start(),
                );
                mapped.expect("the file, mapped");
            }
        }
        at
    };
    let mut region = MmapRegionBuilder::new(length)
        .with_mmap_prot(protection)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    if let Some(file) = file {
        region = region.with_file_offset(file);
    }
    // SAFETY: the range is mapped so, and is not unmapped: the region does not own it, and nobody else does.
    unsafe { region.with_raw_mmap_pointer(at) }
        .build()
        .expect("what is mapped")
}
