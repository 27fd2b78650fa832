//! The loader: ELF files, bzImages in every packing, and initial file systems, into memory with nothing around it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use berth_vmm::loader::{self, Entry, Loaded};

use vm_memory::GuestMemoryMmap;

use crate::memory::guest;

/// Where a kernel may begin (`layout::HIGH_RAM`): what is below it is the monitor's.
const HIGH_RAM: u64 = berth_vmm::arch::x86_64::layout::HIGH_RAM;

/// Room for a kernel of 3 MiB.
const MEMORY: usize = 4 << 20;

struct Place {
    file: File,
    memory: GuestMemoryMmap,
}

thread_local! {
    static PLACE: RefCell<Place> = RefCell::new(Place {
        file: rustix::fs::memfd_create("kernel", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory").into(),
        memory: guest(&[0, MEMORY], false),
    });
}

/// A file as kernel and as initial file system.
pub(super) fn kernel(bytes: &[u8]) {
    PLACE.with_borrow_mut(|place| {
        place.file.set_len(0).expect("a file in memory");
        place.file.seek(SeekFrom::Start(0)).expect("a file in memory");
        place.file.write_all(bytes).expect("room");
        let path = PathBuf::from(format!("/proc/self/fd/{}", place.file.as_raw_fd()));
        let Ok(Loaded { entry, end }) = loader::kernel(&place.memory, &path) else {
            return;
        };
        let (Entry::Long(at) | Entry::Pvh(at)) = entry;
        assert!(
            (HIGH_RAM..end).contains(&at),
            "nothing is loaded at {at:#x}, where it begins"
        );
        assert!(end <= MEMORY as u64, "it ends at {end:#x}, behind all memory");
        if let Ok((at, length)) = loader::initrd(&place.memory, &path, end) {
            assert!(
                at >= end && at + length <= MEMORY as u64,
                "{length} bytes at {at:#x}"
            );
        }
    });
}
