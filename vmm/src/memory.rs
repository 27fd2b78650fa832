//! Guest memory: private maps, laid out around the hole below 4 GiB, of nothing or of a snapshot's file.

use std::fs::File;
use std::sync::Arc;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

use crate::arch::x86_64::layout::{self, MIB};
use crate::error::{Error, Result};

/// Maps `mib` MiB. Pages are given by the kernel when they are first touched.
pub(crate) fn map(mib: u32) -> Result<GuestMemoryMmap> {
    map_regions(mib, |_| None)
}

/// Maps `mib` MiB that are in `file`, one region behind the other. Pages are read when they are first touched, and copied when they
/// are first written: the file stays as it is, and costs nothing here.
pub(crate) fn map_file(mib: u32, file: File) -> Result<GuestMemoryMmap> {
    let file = Arc::new(file);
    map_regions(mib, |offset| Some(FileOffset::from_arc(file.clone(), offset)))
}

/// Whether pages that are dropped come back as a file's instead of zeroes.
pub(crate) fn is_of_file(memory: &GuestMemoryMmap) -> bool {
    memory.iter().any(|region| region.file_offset().is_some())
}

fn map_regions(mib: u32, file: impl Fn(u64) -> Option<FileOffset>) -> Result<GuestMemoryMmap> {
    let fail = |source: Box<dyn std::error::Error + Send + Sync>| Error::Memory { mib, source };
    let mut regions = Vec::new();
    let mut offset = 0;
    for (start, length) in layout::ram(u64::from(mib) * MIB) {
        let size = usize::try_from(length).map_err(|e| fail(e.into()))?;
        let mut builder = MmapRegionBuilder::new(size).with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
        let mut flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
        match file(offset) {
            Some(file) => builder = builder.with_file_offset(file),
            None => flags |= libc::MAP_ANONYMOUS,
        }
        let region = builder
            .with_mmap_flags(flags)
            .build()
            .map_err(|e| fail(e.into()))?;
        let region = GuestRegionMmap::new(region, GuestAddress(start));
        regions.push(region.expect("memory ends before addresses do"));
        offset += length;
    }
    GuestMemoryMmap::from_regions(regions).map_err(|e| fail(e.into()))
}
