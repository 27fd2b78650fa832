//! `clone3(2)` used as fork: a child with its own memory, optionally in new namespaces and a cgroup.

#![allow(unsafe_code)] // clone3 has no safe wrapper: the child shares no memory but every lock state of its parent

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::fds;

/// What the child gets besides a copy of the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clone3<'a> {
    /// `CLONE_NEW*` bits; also `CLONE_PARENT`. `CLONE_PIDFD` and `CLONE_INTO_CGROUP` are added by the call.
    pub flags: u64,
    /// Directory of a cgroup v2 group to be born in (Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which side of the clone this is.
#[derive(Debug)]
pub enum Forked {
    /// The caller, with the child's pid as the caller's pid namespace counts it.
    Parent {
        /// The child's pid.
        pid: i32,
        /// Names the child for as long as it is open, even after its pid is reused.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// Duplicates the process; `man 2 clone3`. Does not block.
///
/// # Safety
///
/// The caller is single-threaded, or its child calls only async-signal-safe functions until it executes a program: a
/// lock held by another thread at this moment (the allocator's, say) stays locked forever in the child.
///
/// # Errors
///
/// The errno of clone3.
pub unsafe fn clone3(options: Clone3<'_>) -> io::Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = options.flags | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    let mut cgroup = 0;
    if let Some(fd) = options.cgroup {
        flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        cgroup = u64::from(fd.as_raw_fd().cast_unsigned());
    }
    // With CLONE_PARENT the new process reports to our parent by the signal ours was cloned with.
    let parented = flags & u64::from(libc::CLONE_PARENT.cast_unsigned()) != 0;
    let exit_signal = if parented { 0 } else { libc::SIGCHLD };
    let args = libc::clone_args {
        flags,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(exit_signal.cast_unsigned()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: args outlives the call and its size is passed; no CLONE_VM is set by any caller of this crate, so the
    // child runs on its own copy of this stack. The rest is the caller's duty above.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        0 => Ok(Forked::Child),
        1.. => Ok(Forked::Parent {
            pid: i32::try_from(pid).map_err(io::Error::other)?,
            // SAFETY: the kernel stored a new descriptor here before returning to the parent, and nobody else has it.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs `work` in a process of its own that nobody waits for, and returns at once.
///
/// # Errors
///
/// `EBUSY` when this process has more than one thread: a lock another holds now would stay locked in the child for ever.
/// The errno of clone3.
pub fn go_on_alone(work: impl FnOnce()) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: the only thread is this one, as was just counted, and it starts no other in between.
    match unsafe { clone3(Clone3::default()) }? {
        Forked::Parent { .. } => Ok(()),
        Forked::Child => {
            work();
            exit_now(0)
        }
    }
}

/// Runs `work` in a process of its own, which ends with the code that returns; its pid and pidfd. It has `streams` for its
/// standard ones and a copy of `given`, nothing else that is open here, and signals as from a shell.
///
/// # Errors
///
/// As [`go_on_alone`].
pub fn run_beside(
    streams: &[OwnedFd; 3],
    given: BorrowedFd<'_>,
    work: impl FnOnce(OwnedFd) -> i32,
) -> io::Result<(i32, OwnedFd)> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: as in `go_on_alone`.
    match unsafe { clone3(Clone3::default()) }? {
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Forked::Child => {
            crate::credentials::reset_signals();
            let code = match take_over(streams, given) {
                Ok(given) => work(given),
                Err(_) => 1,
            };
            exit_now(code)
        }
    }
}

/// Leaves a process these descriptors as its first, and no others.
fn take_over(streams: &[OwnedFd; 3], given: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const GIVEN: i32 = 3;
    // Out of the way first: any of them may have the number that another is to get.
    let aside = |fd: i32| fds::duplicate(fd, 16);
    let [input, output, error] = streams.each_ref().map(|fd| aside(fd.as_raw_fd()));
    let (moved, given) = ([input?, output?, error?], aside(given.as_raw_fd())?);
    for (place, fd) in (0..).zip(&moved) {
        fds::place(fd.as_raw_fd(), place)?;
    }
    fds::place(given.as_raw_fd(), GIVEN)?;
    // They have copies now, and so have their owners in the process this one is a copy of: nobody here closes them again.
    std::mem::forget((moved, given));
    // SAFETY: this process runs nothing of its parent's but the caller's work, which gets what it needs, and ends without
    // running destructors.
    unsafe { fds::close_from(GIVEN.unsigned_abs() + 1) }?;
    // SAFETY: it was made above, and its number is nobody's here.
    Ok(unsafe { OwnedFd::from_raw_fd(GIVEN) })
}

/// Ends the process at once without running destructors or `atexit` handlers, which belong to the parent's copy.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}
