//! What the host's kernel says of files, in the C library's structures, which the FUSE server takes.
#![allow(unsafe_code)] // two system calls whose wrappers elsewhere have structures of their own

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use fuse_backend_rs::abi::fuse_abi::{stat64, statvfs64};

/// Of a file that is open, or only named (`O_PATH`).
pub(super) fn file(fd: BorrowedFd<'_>) -> io::Result<stat64> {
    let mut found = MaybeUninit::zeroed();
    // SAFETY: the path is a string and `found` is there to be written.
    let done = unsafe {
        libc::fstatat64(
            fd.as_raw_fd(),
            c"".as_ptr(),
            found.as_mut_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    if done == 0 {
        // SAFETY: the call has filled it.
        Ok(unsafe { found.assume_init() })
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Of the file system it is on.
pub(super) fn file_system(fd: BorrowedFd<'_>) -> io::Result<statvfs64> {
    let mut found = MaybeUninit::zeroed();
    // SAFETY: `found` is there to be written.
    if unsafe { libc::fstatvfs64(fd.as_raw_fd(), found.as_mut_ptr()) } == 0 {
        // SAFETY: the call has filled it.
        Ok(unsafe { found.assume_init() })
    } else {
        Err(io::Error::last_os_error())
    }
}
