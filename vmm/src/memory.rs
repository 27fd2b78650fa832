//! Guest memory: anonymous private maps, laid out around the hole below 4 GiB.

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::arch::x86_64::layout::{self, MIB};
use crate::error::{Error, Result};

/// Maps `mib` MiB. Pages are given by the kernel when they are first touched.
pub(crate) fn map(mib: u32) -> Result<GuestMemoryMmap> {
    let fail = |source: Box<dyn std::error::Error + Send + Sync>| Error::Memory { mib, source };
    let mut ranges = Vec::new();
    for (start, length) in layout::ram(u64::from(mib) * MIB) {
        let length = usize::try_from(length).map_err(|e| fail(e.into()))?;
        ranges.push((GuestAddress(start), length));
    }
    GuestMemoryMmap::from_ranges(&ranges).map_err(|e| fail(e.into()))
}
