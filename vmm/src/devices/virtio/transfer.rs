//! Bytes between descriptors of the host and guest memory, without a copy between them.
#![allow(unsafe_code)] // the kernel reads and writes guest memory by address

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::volatile_memory::{PtrGuard, PtrGuardMut};

use super::chain::Slice;

/// Fills `slices` from `file` at `offset`. Blocks.
pub(super) fn read_at(file: BorrowedFd<'_>, offset: u64, slices: &[Slice<'_>]) -> io::Result<()> {
    let guards = guards_mut(slices);
    all(vectors_mut(&guards), offset, |vectors, count, at| {
        // SAFETY: each vector is (a part of) a slice that vm-memory checked to lie in mapped guest memory, which stays
        // mapped while `slices` borrows it; no Rust reference to those bytes exists, as guest memory is volatile.
        unsafe { libc::preadv(file.as_raw_fd(), vectors, count, at) }
    })
}

/// Writes `slices` to `file` at `offset`. Blocks.
pub(super) fn write_at(file: BorrowedFd<'_>, offset: u64, slices: &[Slice<'_>]) -> io::Result<()> {
    let guards: Vec<_> = slices.iter().map(Slice::ptr_guard).collect();
    all(vectors(&guards), offset, |vectors, count, at| {
        // SAFETY: as in `read_at`; the kernel does not write through the vectors.
        unsafe { libc::pwritev(file.as_raw_fd(), vectors, count, at) }
    })
}

/// Reads one packet into `slices`; its length, or `None` for one that they have no room for, whose end is lost then. Takes
/// no more than [`SLICES_MAX`].
pub(super) fn receive(from: BorrowedFd<'_>, slices: &[Slice<'_>]) -> io::Result<Option<usize>> {
    let guards = guards_mut(slices);
    let mut vectors = vectors_mut(&guards);
    let room: usize = slices.iter().map(Slice::len).sum();
    // The kernel cuts a packet without a word. One byte more, and it shows.
    let mut more = [0_u8; 1];
    vectors.push(libc::iovec {
        iov_base: more.as_mut_ptr().cast(),
        iov_len: more.len(),
    });
    let length = once(&vectors, |vectors, count| {
        // SAFETY: as in `read_at`; the last vector is `more`, which outlives the call and nobody else looks at.
        unsafe { libc::readv(from.as_raw_fd(), vectors, count) }
    })?;
    Ok((length <= room).then_some(length))
}

/// Writes `slices` as one packet. Takes no more than [`SLICES_MAX`].
pub(super) fn send(to: BorrowedFd<'_>, slices: &[Slice<'_>]) -> io::Result<usize> {
    let guards: Vec<_> = slices.iter().map(Slice::ptr_guard).collect();
    once(&vectors(&guards), |vectors, count| {
        // SAFETY: as in `write_at`.
        unsafe { libc::writev(to.as_raw_fd(), vectors, count) }
    })
}

/// How many slices one packet may be made of: what the kernel takes at once (`UIO_MAXIOV`), and one of ours.
pub(super) const SLICES_MAX: usize = 1023;

fn guards_mut(slices: &[Slice<'_>]) -> Vec<PtrGuardMut> {
    slices.iter().map(Slice::ptr_guard_mut).collect()
}

fn vectors_mut(guards: &[PtrGuardMut]) -> Vec<libc::iovec> {
    // One more is pushed for packets.
    let mut vectors = Vec::with_capacity(guards.len() + 1);
    vectors.extend(guards.iter().map(|guard| libc::iovec {
        iov_base: guard.as_ptr().cast(),
        iov_len: guard.len(),
    }));
    vectors
}

/// The kernel takes one kind of vector for both ways.
fn vectors(guards: &[PtrGuard]) -> Vec<libc::iovec> {
    let vectors = guards.iter().map(|guard| libc::iovec {
        iov_base: guard.as_ptr().cast_mut().cast(),
        iov_len: guard.len(),
    });
    vectors.collect()
}

/// Calls, again when a signal came before anything else.
fn once(
    vectors: &[libc::iovec],
    mut call: impl FnMut(*const libc::iovec, libc::c_int) -> isize,
) -> io::Result<usize> {
    let count = libc::c_int::try_from(vectors.len()).expect("a thousand");
    loop {
        match usize::try_from(call(vectors.as_ptr(), count)) {
            Ok(length) => return Ok(length),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
        }
    }
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
