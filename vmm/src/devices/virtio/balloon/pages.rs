//! Guest memory that the host takes back.
#![allow(unsafe_code)] // madvise(2) changes what memory holds

use rustix::mm::{Advice, madvise};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::devices::virtio::chain::{Malformed, Slice};

/// Bytes in a page of the balloon, whatever pages host and guest have (virtio 1.2 §5.5.6).
pub(super) const PAGE: usize = 4096;

/// Takes pages back, by their numbers, in as few calls as they allow. They are put into order.
///
/// # Errors
///
/// When one of them is no memory; others may be gone by then.
pub(super) fn take_back(memory: &GuestMemoryMmap, pages: &mut Vec<u32>) -> Result<(), Malformed> {
    pages.sort_unstable();
    pages.dedup();
    for run in pages.chunk_by(|page, next| page + 1 == *next) {
        let at = GuestAddress(u64::from(run[0]) * PAGE as u64);
        for slice in GuestMemoryBackend::get_slices(memory, at, run.len() * PAGE) {
            give_up(&slice.map_err(|_| Malformed("a page of the balloon is no memory"))?);
        }
    }
    Ok(())
}

/// Gives the host back the whole pages of a slice: they read as zeroes, and take memory again when they are next written.
/// A page that the kernel keeps, because it is locked, is as it was.
pub(super) fn give_up(slice: &Slice<'_>) {
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
    // SAFETY: the range lies within a slice that vm-memory checked to be mapped guest memory, of which there are no Rust
    // references; the guest, whose memory it is, said that it does not need what is there.
    let _ = unsafe { madvise(first.add(skipped).cast(), length, Advice::LinuxDontNeed) };
}
