//! Signals as a descriptor, for a process that waits for a child and passes on what it is sent.

#![allow(unsafe_code)] // sigprocmask(2) and signalfd(2) have no safe wrapper

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// Blocks every signal and returns a non-blocking, close-on-exec descriptor that reads them.
///
/// # Errors
///
/// The errno of sigprocmask or signalfd.
pub fn block_all() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigfillset before it is read; signalfd returns a descriptor nobody else has.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

/// The next pending signal's number; `None` when there is none.
///
/// # Errors
///
/// The errno of read.
pub fn next<Fd: AsFd>(signals: Fd) -> io::Result<Option<i32>> {
    // struct signalfd_siginfo is 128 bytes and begins with the number.
    let mut info = [0u8; 128];
    match rustix::io::read(signals, &mut info) {
        Ok(128) => {
            let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            Ok(i32::try_from(number).ok())
        }
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
