//! What a process is allowed and how it runs: ids, groups, capabilities, keyring, personality, priorities.
//!
//! All calls change the calling thread alone; their users are single-threaded.

#![allow(unsafe_code)] // raw system calls whose libc wrappers are missing or signal other threads

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn check(rc: libc::c_long) -> io::Result<libc::c_long> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}

/// The capability sets of a thread as bit masks; bit n is capability n of `capabilities(7)`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CapSets {
    /// What it may do now.
    pub effective: u64,
    /// What it may take up.
    pub permitted: u64,
    /// What execve of a file with inheritable bits keeps.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// Reads the calling thread's sets; `capget(2)`.
///
/// # Errors
///
/// The errno of capget.
pub fn capabilities() -> io::Result<CapSets> {
    let mut header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes two data structs, which is what `data` holds.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(CapSets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Sets the calling thread's sets; `capset(2)`.
///
/// # Errors
///
/// `EPERM` when a set grows beyond what the thread may have.
pub fn set_capabilities(sets: CapSets) -> io::Result<()> {
    let mut header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| {
        let low = |set: u64| u32::try_from(set >> shift & 0xffff_ffff).expect("masked to 32 bits");
        CapData {
            effective: low(sets.effective),
            permitted: low(sets.permitted),
            inheritable: low(sets.inheritable),
        }
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two data structs, which is what `data` holds.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Whether capability `cap` is in the bounding set; an error means that the kernel has no such capability.
///
/// # Errors
///
/// `EINVAL` for an unknown capability.
pub fn in_bounding_set(cap: u32) -> io::Result<bool> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) }.into()).map(|v| v == 1)
}

/// Takes capability `cap` out of the bounding set for good.
///
/// # Errors
///
/// `EPERM` without `CAP_SETPCAP`.
pub fn drop_from_bounding_set(cap: u32) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) }.into()).map(drop)
}

/// Empties the ambient set.
///
/// # Errors
///
/// The errno of prctl.
pub fn clear_ambient() -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())
        .map(drop)
}

/// Adds capability `cap` to the ambient set; it must be permitted and inheritable.
///
/// # Errors
///
/// `EPERM` when it is not.
pub fn raise_ambient(cap: u32) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, cap, 0, 0) }.into())
        .map(drop)
}

/// Keeps permitted capabilities across the change from uid 0 to another.
///
/// # Errors
///
/// The errno of prctl.
pub fn keep_capabilities(keep: bool) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) }.into()).map(drop)
}

/// Denies ptrace and `/proc/PID` access to processes without `CAP_SYS_PTRACE` over this one. Lasts until execve.
///
/// # Errors
///
/// The errno of prctl.
pub fn set_undumpable() -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(drop)
}

/// Sets real, effective and saved user id of this thread.
///
/// # Errors
///
/// `EPERM`; `EINVAL` when the id has no mapping in this user namespace.
pub fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets real, effective and saved group id of this thread.
///
/// # Errors
///
/// As [`set_uid`].
pub fn set_gid(gid: u32) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Replaces the supplementary groups of this thread.
///
/// # Errors
///
/// `EPERM`, also in a user namespace whose `setgroups` says deny.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length are of one slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Starts a new session keyring called `name`, so that the caller's keys stay behind; `keyctl(2)`.
///
/// # Errors
///
/// `ENOSYS` on kernels without keys; `EDQUOT` when the user's quota is used up.
pub fn join_session_keyring(name: &CStr) -> io::Result<i64> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the name is a C string that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
}

/// Sets the execution domain; `personality(2)`.
///
/// # Errors
///
/// The errno of personality.
pub fn set_personality(persona: libc::c_ulong) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::personality(persona) }.into()).map(drop)
}

/// Sets the I/O class and priority of this thread; `ioprio_set(2)`.
///
/// # Errors
///
/// `EPERM` for the real-time class without `CAP_SYS_NICE`.
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, class << 13 | level) })
        .map(drop)
}

/// What `sched_setattr(2)` takes; times in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedAttr {
    /// Size of this struct; filled in by the call.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the normal policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// For the deadline policy.
    pub runtime: u64,
    /// For the deadline policy.
    pub deadline: u64,
    /// For the deadline policy.
    pub period: u64,
}

/// Sets policy and parameters of this thread.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_NICE`, `EINVAL` for parameters the policy does not take.
pub fn set_scheduler(mut attr: SchedAttr) -> io::Result<()> {
    attr.size = u32::try_from(size_of::<SchedAttr>()).expect("48 bytes");
    // SAFETY: the struct carries its own size and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// Sets a limit of this process by `RLIMIT_*` number.
///
/// # Errors
///
/// `EPERM` when the hard limit would grow without `CAP_SYS_RESOURCE`; `EINVAL` when soft exceeds hard.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the new limit is read and the old one not asked for.
    check(unsafe { libc::prlimit64(0, resource, &raw const limit, std::ptr::null_mut()) }.into()).map(drop)
}

/// Leaves namespaces for new ones; `unshare(2)` with `CLONE_NEW*` bits.
///
/// # Errors
///
/// `EPERM`; `EINVAL` for a bit this kernel does not know.
pub fn unshare(namespaces: i32) -> io::Result<()> {
    // SAFETY: integers only; callers pass no CLONE_FILES, so no descriptor table changes under an OwnedFd.
    check(unsafe { libc::unshare(namespaces) }.into()).map(drop)
}

/// Sets host or domain name of this UTS namespace.
///
/// # Errors
///
/// `EPERM`; `EINVAL` when longer than 64 bytes.
pub fn set_domainname(name: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length are of one slice.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// `pidfd_send_signal(2)` for any signal number.
pub(crate) fn pidfd_send_signal_raw(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo asks for what kill(2) would send.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) }).map(drop)
}

/// Gives every signal its default action and unblocks all, so that a new program starts as from a login shell.
pub fn reset_signals() {
    // SAFETY: an all-zero sigset_t is an empty set; SIG_DFL needs no handler to exist.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}
