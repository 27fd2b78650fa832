//! Bytes between a disk and guest memory, without a copy between them.
#![allow(unsafe_code)] // the kernel reads and writes guest memory by address

use std::io;
use std::os::fd::AsRawFd;

use super::disk::Disk;
use crate::devices::virtio::chain::Slice;

/// Fills `slices` from the disk at `offset`. Blocks.
pub(super) fn read(disk: &Disk, offset: u64, slices: &[Slice<'_>]) -> io::Result<()> {
    let guards: Vec<_> = slices.iter().map(Slice::ptr_guard_mut).collect();
    let vectors = guards.iter().map(|guard| libc::iovec {
        iov_base: guard.as_ptr().cast(),
        iov_len: guard.len(),
    });
    all(vectors.collect(), offset, |vectors, count, at| {
        // SAFETY: each vector is (a part of) a slice that vm-memory checked to lie in mapped guest memory, which stays
        // mapped while `slices` borrows it; no Rust reference to those bytes exists, as guest memory is volatile.
        unsafe { libc::preadv(disk.file.as_raw_fd(), vectors, count, at) }
    })
}

/// Writes `slices` to the disk at `offset`. Blocks.
pub(super) fn write(disk: &Disk, offset: u64, slices: &[Slice<'_>]) -> io::Result<()> {
    let guards: Vec<_> = slices.iter().map(Slice::ptr_guard).collect();
    let vectors = guards.iter().map(|guard| libc::iovec {
        iov_base: guard.as_ptr().cast_mut().cast(),
        iov_len: guard.len(),
    });
    all(vectors.collect(), offset, |vectors, count, at| {
        // SAFETY: as in `read`; the kernel does not write through the vectors.
        unsafe { libc::pwritev(disk.file.as_raw_fd(), vectors, count, at) }
    })
}

/// Calls until every byte is moved.
fn all(
    mut vectors: Vec<libc::iovec>,
    offset: u64,
    mut call: impl FnMut(*const libc::iovec, libc::c_int, libc::off_t) -> isize,
) -> io::Result<()> {
    let too_far = |_| io::Error::from_raw_os_error(libc::EOVERFLOW);
    let mut at = libc::off_t::try_from(offset).map_err(too_far)?;
    let mut first = 0;
    while first < vectors.len() {
        // A queue of 256 makes few more vectors than that: far from IOV_MAX.
        let left = &vectors[first..];
        let count = libc::c_int::try_from(left.len()).expect("a few hundred");
        let moved = call(left.as_ptr(), count, at);
        let mut moved = match usize::try_from(moved) {
            // The file became shorter than it was.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => moved,
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => continue,
                e => return Err(e),
            },
        };
        at += libc::off_t::try_from(moved).expect("what one call moves");
        while first < vectors.len() && moved >= vectors[first].iov_len {
            moved -= vectors[first].iov_len;
            first += 1;
        }
        if moved > 0 {
            let vector = &mut vectors[first];
            // SAFETY: `moved` is less than the vector's length.
            vector.iov_base = unsafe { vector.iov_base.cast::<u8>().add(moved) }.cast();
            vector.iov_len -= moved;
        }
    }
    Ok(())
}
