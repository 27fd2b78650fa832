//! The parts of the file-descriptor mount API that rustix lacks: `mount_setattr(2)`, and a user namespace that
//! exists only to be the id mapping of a mount.
#![allow(unsafe_code)] // raw system calls

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_IDMAP, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME, MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE,
};

/// What `mount_setattr(2)` changes; `Default` changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttr<'fd> {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear, before `set` is applied.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
    /// The user namespace for `MOUNT_ATTR_IDMAP`.
    pub userns: Option<Userns<'fd>>,
}

/// A borrowed user namespace descriptor that compares by number.
#[derive(Clone, Copy, Debug)]
pub struct Userns<'fd>(pub BorrowedFd<'fd>);

impl PartialEq for Userns<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_raw_fd() == other.0.as_raw_fd()
    }
}
impl Eq for Userns<'_> {}

/// Changes the mount that `fd` is the root of, and with `recursive` every mount below it (`mount_setattr(2)`, Linux
/// 5.12). All or nothing: if one mount refuses, none is changed.
///
/// # Errors
/// The errno of the call; EPERM when a flag is locked by a more privileged user namespace, EINVAL when `fd` is
/// not the root of a mount.
pub fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr<'_>) -> io::Result<()> {
    mount_setattr_at(fd, c"", recursive, attr)
}

/// As [`mount_setattr`] for `path` below `fd`; an empty path is `fd` itself.
///
/// # Errors
/// As [`mount_setattr`].
pub fn mount_setattr_at(
    fd: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attr: &MountAttr<'_>,
) -> io::Result<()> {
    let raw = libc::mount_attr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: attr
            .userns
            .map_or(0, |ns| u64::from(ns.0.as_raw_fd().unsigned_abs())),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path is NUL-terminated by its type and `raw` lives across the call, whose size is the one passed.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const raw,
            size_of::<libc::mount_attr>(),
        )
    };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes a user namespace with these maps (the text of `/proc/PID/uid_map` and `gid_map`) and returns it by
/// descriptor. A child is cloned to hold it for the few microseconds that writing the maps takes; it is gone, and
/// reaped, when this returns. Needs CAP_SETUID and CAP_SETGID over the ids named.
///
/// # Errors
/// The errno of clone, of a map write, or of opening the namespace.
pub fn user_namespace(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: without CLONE_VM the child has its own copy of memory; it only calls pause and _exit, both
    // async-signal-safe, so other threads' locks held at the clone do not matter.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::CLONE_NEWUSER | libc::CLONE_PIDFD | libc::SIGCHLD,
            std::ptr::null_mut::<libc::c_void>(),
            &raw mut pidfd,
            0,
            0,
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: as above; the parent's death ends the child too, so a crash here leaves no process behind.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            loop {
                libc::pause();
            }
        }
    }
    // SAFETY: CLONE_PIDFD stored a descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let made = (|| {
        std::fs::write(format!("/proc/{pid}/uid_map"), uid_map)?;
        std::fs::write(format!("/proc/{pid}/gid_map"), gid_map)?;
        std::fs::File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from)
    })();
    // SAFETY: pidfd refers to our own child; a null siginfo is allowed, and the status is not wanted.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            0,
            0,
        );
        while libc::waitid(
            libc::P_PIDFD,
            pidfd.as_raw_fd().unsigned_abs(),
            std::ptr::null_mut(),
            libc::WEXITED,
        ) < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    made
}
