//! Keeping descriptors away from foreign code.

#![allow(unsafe_code)] // close_range(2) and the adoption of inherited descriptors have no safe wrapper

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Marks every descriptor from `first` on close-on-exec; `close_range(2)`, Linux 5.11.
///
/// # Errors
///
/// The errno of close_range, or of the slower walk taken on kernels without `CLOSE_RANGE_CLOEXEC`.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: no pointers; setting close-on-exec closes nothing in this process.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from `first` on; `close_range(2)`.
///
/// # Safety
///
/// Nothing in this process owns one of them, so it is called first thing in `main`. What the caller of this program left open by
/// mistake has no owner, and no safe call could name it.
///
/// # Errors
///
/// `ENOSYS` before Linux 5.9.
pub unsafe fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: no pointers; that no owner is left with a closed descriptor is the caller's duty above.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor but `kept`.
///
/// # Safety
///
/// As [`close_from`], for those that are closed: whoever owned them in this process does nothing any more.
///
/// # Errors
///
/// As [`close_from`].
pub unsafe fn close_all_but(kept: &mut [RawFd]) -> io::Result<()> {
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > first {
            // SAFETY: no pointers; the rest is the caller's duty above.
            if unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = fd + 1;
    }
    // SAFETY: the caller's duty above.
    unsafe { close_from(first) }
}

/// Sets or clears close-on-exec on one descriptor by number.
///
/// # Errors
///
/// `EBADF` when it is not open.
pub fn set_cloexec(fd: RawFd, on: bool) -> io::Result<()> {
    // SAFETY: F_SETFD reads an integer.
    let rc = unsafe { libc::fcntl(fd, libc::F_SETFD, if on { libc::FD_CLOEXEC } else { 0 }) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether a descriptor of this number is open.
#[must_use]
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no argument.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Duplicates an open descriptor by number, close-on-exec, at or above `at_least`.
///
/// # Errors
///
/// The errno of `F_DUPFD_CLOEXEC`; `EBADF` when it is not open.
pub fn duplicate(fd: RawFd, at_least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer; the new descriptor is ours alone.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, at_least) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fcntl just returned this new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Puts a copy of `from` at exactly `to` (0, 1 or 2, say), not close-on-exec, replacing what was there.
///
/// # Errors
///
/// The errno of dup2.
pub fn place(from: RawFd, to: RawFd) -> io::Result<()> {
    if from == to {
        return set_cloexec(to, false);
    }
    // SAFETY: no pointers. Callers place standard streams, which std never owns as OwnedFd.
    let rc = unsafe { libc::dup2(from, to) };
    if rc == to {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone::{Clone3, Forked, clone3, exit_now};
    use std::os::fd::AsRawFd;

    #[test]
    fn what_is_kept_stays_and_the_rest_goes() {
        let files: Vec<_> = (0..6)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: the child makes system calls and looks at memory that is there.
        match unsafe { clone3(Clone3::default()) }.unwrap() {
            Forked::Child => {
                let mut kept = [numbers[4], numbers[1], numbers[2], -1];
                // SAFETY: this process uses none of them, and runs no destructors.
                let closed = unsafe { close_all_but(&mut kept) }.is_ok();
                let open = numbers.iter().map(|number| is_open(*number));
                let right = open.eq([false, true, true, false, true, false]) && !is_open(0);
                exit_now(i32::from(!(closed && right)));
            }
            Forked::Parent { pidfd, .. } => {
                assert_eq!(crate::pidfd::wait(pidfd).unwrap(), crate::pidfd::Exit::Code(0));
            }
        }
    }
}
