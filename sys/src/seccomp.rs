//! `seccomp(2)`: installing a filter that is already compiled.
#![allow(unsafe_code)] // a raw system call

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

pub use libc::sock_filter as Instruction;

/// Instructions the kernel takes at most (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const NEW_LISTENER: libc::c_ulong = 1 << 3;

/// Installs `program` for the calling thread, with `SECCOMP_FILTER_FLAG_*` bits. With [`NEW_LISTENER`] the listener's
/// descriptor, close-on-exec, is returned.
///
/// # Errors
/// The errno: EACCES without no_new_privs or CAP_SYS_ADMIN, EINVAL for a program or flag the kernel rejects, ESRCH when
/// TSYNC cannot reach a thread.
pub fn set_filter(program: &[Instruction], flags: libc::c_ulong) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` describes the borrowed slice, which the kernel only reads, and only during the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & NEW_LISTENER == 0 {
        // With plain TSYNC a positive answer is the id of the thread that could not follow.
        return if rc == 0 {
            Ok(None)
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        };
    }
    let fd = i32::try_from(rc).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the call answers with a new descriptor, owned by nobody else.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
