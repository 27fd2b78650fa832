//! The guard against CVE-2019-5736: no process that joins a container runs from a file the container could write.
//!
//! A process inside a container can open `/proc/PID/exe` of a runtime process that is about to become its sibling, and
//! once that process executes something else, write through it to the host's binary. [`seal`] makes the program run
//! from a detached, read-only clone of the mount its file is on: opening `/proc/PID/exe` for writing then fails with
//! `EROFS` for everyone, and no copy of the file is made. Where the clone is refused (no `CAP_SYS_ADMIN`, a kernel
//! before 5.12) a sealed memfd holding a copy takes its place.
//!
//! A program started by [`execute`] needs no second exec of its own: it finds itself sealed.

#![allow(unsafe_code)] // execveat(2) and mount_setattr(2) have no safe wrapper

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::mount::OpenTreeFlags;

const ALL_SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Whether the running program's file can be written by nobody through `/proc/self/exe`.
///
/// The kernel's answer, not a marker in the environment: the mount the file is on is read-only, or the file is a
/// fully sealed memfd.
///
/// # Errors
///
/// The errno of opening `/proc/self/exe`.
pub fn is_sealed() -> io::Result<bool> {
    let me = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatvfs(&me)?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY)
    {
        return Ok(true);
    }
    Ok(rustix::fs::fcntl_get_seals(&me).is_ok_and(|seals| seals.contains(ALL_SEALS)))
}

/// Makes sure the running program is sealed: returns if it is, executes it again with the same arguments and
/// environment if not. Call first thing in `main`, before any thread or descriptor exists.
///
/// # Errors
///
/// Neither a read-only clone nor a sealed copy could be made and executed.
pub fn seal() -> io::Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    Err(execute(Path::new("/proc/self/exe"), &args))
}

/// Replaces this process with `program`, sealed. Returns only on failure.
#[must_use]
pub fn execute(program: &Path, args: &[OsString]) -> io::Error {
    let sealed = match clone_read_only(program).or_else(|_| copy_sealed(program)) {
        Ok(fd) => fd,
        Err(e) => return e,
    };
    let args: Result<Vec<CString>, _> = args.iter().map(|a| CString::new(a.as_bytes())).collect();
    let env: Result<Vec<CString>, _> = std::env::vars_os()
        .map(|(mut k, v)| {
            k.push("=");
            k.push(v);
            CString::new(k.as_bytes())
        })
        .collect();
    match (args, env) {
        (Ok(args), Ok(env)) => execveat(sealed.as_fd(), &args, &env),
        (Err(e), _) | (_, Err(e)) => e.into(),
    }
}

/// A descriptor of `program` on a detached read-only clone of its mount; `open_tree(2)`, `mount_setattr(2)`.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` before Linux 5.12.
pub fn clone_read_only(program: &Path) -> io::Result<OwnedFd> {
    let tree = rustix::mount::open_tree(
        rustix::fs::CWD,
        program,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr {
        set: 1, /* MOUNT_ATTR_RDONLY */
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, attr lives through the call and its size is passed.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if rc == 0 {
        Ok(tree)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A copy of `program` in memory that nobody can change any more; `memfd_create(2)`.
///
/// # Errors
///
/// The errno of reading the file or making the copy.
pub fn copy_sealed(program: &Path) -> io::Result<OwnedFd> {
    let from = rustix::fs::open(program, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let to = rustix::fs::memfd_create("berth", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    while rustix::fs::sendfile(&to, &from, None, 1 << 20)? > 0 {}
    rustix::fs::fcntl_add_seals(&to, ALL_SEALS)?;
    Ok(to)
}

/// Executes the file behind a descriptor; `execveat(2)` with `AT_EMPTY_PATH`. Returns only on failure.
#[must_use]
pub fn execveat(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let args = pointers(args);
    let env = pointers(env);
    // SAFETY: both arrays end in a null pointer and point at strings borrowed for longer than the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Executes `program` by path; `execve(2)`. Returns only on failure.
#[must_use]
pub fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let args = pointers(args);
    let env = pointers(env);
    // SAFETY: both arrays end in a null pointer and point at strings borrowed for longer than the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain(std::iter::once(std::ptr::null()))
        .collect()
}
