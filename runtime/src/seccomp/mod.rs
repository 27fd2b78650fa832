//! Seccomp filters: from the spec's `linux.seccomp` (config-linux.md#seccomp) to a program in the kernel.
//!
//! ```text
//! LinuxSeccomp ──check──► rules ──libseccomp──► BPF ──► prologue for calls newer than libseccomp ──► Filter
//!      └── sha256 ──► cache file, verified ────────────────────────────────────────────────────────────┘
//! ```
//!
//! Compiling the usual profile takes longer than all else in a container's start; reading it back takes microseconds.
//! A program without the feature `seccomp-compiler` reads only: what it needs is [`compiled`] by another, for its cache.

mod bytes;
mod cache;
#[cfg(feature = "seccomp-compiler")]
mod compile;
mod error;
#[cfg(feature = "seccomp-compiler")]
mod keep;
#[cfg(feature = "seccomp-compiler")]
mod prologue;
#[cfg(all(test, feature = "seccomp-compiler"))]
mod tests;

use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::seccomp::{Instruction, NEW_LISTENER, set_filter};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmmsg, sendmsg};

pub use error::{Error, Result};

/// A compiled filter, ready to load.
#[derive(Debug)]
pub struct Filter {
    program: Vec<Instruction>,
    flags: libc::c_ulong,
    send: Send,
}

/// How the notify descriptor can leave a process that the filter already holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Send {
    Message,
    Messages,
}

impl Filter {
    /// Compiles, or takes from `cache_dir` what an equal profile compiled to before. Parent's side. A cache that cannot be
    /// read, verified or written only costs time, but for a program that cannot compile.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field; [`Error::Compile`] carries libseccomp's complaint.
    pub fn compile(seccomp: &LinuxSeccomp, cache_dir: Option<&Path>) -> Result<Filter> {
        let notifies = check_notify(seccomp)?;
        let send = way_out(seccomp)?;
        let flags = flags(seccomp, notifies);
        let program = program(seccomp, cache_dir)?;
        Ok(Filter { program, flags, send })
    }

    /// Whether [`load`](Self::load) will return a notify descriptor; `listenerPath` is then set, and its socket has to
    /// be connected before the load.
    pub fn notifies(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }

    /// Installs the filter on the calling thread (all threads with TSYNC). Needs no_new_privs or CAP_SYS_ADMIN. Returns the
    /// notify descriptor if the filter notifies; hand it over with [`send_listener`](Self::send_listener) next, before
    /// any other system call.
    ///
    /// # Errors
    /// [`Error::Load`].
    pub fn load(&self) -> Result<Option<OwnedFd>> {
        set_filter(&self.program, self.flags).map_err(|source| Error::Load { source })
    }

    /// Sends the notify descriptor and the container process state (JSON, config-linux.md#containerprocessstate) over the
    /// connected `listenerPath` socket, with a system call that this filter does not itself hold up for the listener.
    ///
    /// # Errors
    /// [`Error::Send`].
    pub fn send_listener(&self, socket: BorrowedFd<'_>, state: &[u8], notify: BorrowedFd<'_>) -> Result<()> {
        let fail = |e: rustix::io::Errno| Error::Send { source: e.into() };
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [notify];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let data = [IoSlice::new(state)];
        let sent = match self.send {
            Send::Message => sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL).map_err(fail)?,
            Send::Messages => {
                let mut one = [MMsgHdr::new(&data, &mut control)];
                sendmmsg(socket, &mut one, SendFlags::NOSIGNAL).map_err(fail)?;
                one[0].bytes_sent()
            }
        };
        if sent == state.len() {
            return Ok(());
        }
        Err(Error::Send {
            source: std::io::ErrorKind::WriteZero.into(),
        })
    }
}

#[cfg(feature = "seccomp-compiler")]
fn program(seccomp: &LinuxSeccomp, cache_dir: Option<&Path>) -> Result<Vec<Instruction>> {
    let Some(dir) = cache_dir else {
        return compile::program(seccomp);
    };
    let (key, compiler) = (cache::key(seccomp)?, compile::compiler()?);
    if let Some(program) = cache::read(dir, &key, Some(&compiler)) {
        return Ok(program);
    }
    let program = compile::program(seccomp)?;
    keep::write(dir, &key, &keep::contents(&key, &compiler, &program));
    Ok(program)
}

#[cfg(not(feature = "seccomp-compiler"))]
fn program(seccomp: &LinuxSeccomp, cache_dir: Option<&Path>) -> Result<Vec<Instruction>> {
    let key = cache::key(seccomp)?;
    cache_dir
        .and_then(|dir| cache::read(dir, &key, None))
        .ok_or(Error::NoCompiler { key })
}

/// A filter for a program that cannot compile it: the file's name in that program's cache directory, and what it is to hold.
/// The file has to be its own and nobody else's (0600).
///
/// # Errors
/// As [`Filter::compile`].
#[cfg(feature = "seccomp-compiler")]
pub fn compiled(seccomp: &LinuxSeccomp, cache_dir: Option<&Path>) -> Result<(String, Vec<u8>)> {
    let key = cache::key(seccomp)?;
    let program = program(seccomp, cache_dir)?;
    let contents = keep::contents(&key, &compile::compiler()?, &program);
    Ok((cache::file_name(&key), contents))
}

/// Whether the profile notifies, and if so whether somebody listens.
fn check_notify(seccomp: &LinuxSeccomp) -> Result<bool> {
    if seccomp.default_action() == LinuxSeccompAction::ScmpActNotify {
        // Nothing could hand the descriptor over: every call would wait for whoever has it.
        return Err(Error::invalid(
            "defaultAction",
            "SCMP_ACT_NOTIFY cannot be the default",
        ));
    }
    let notifies =
        (seccomp.syscalls().iter().flatten()).any(|s| s.action() == LinuxSeccompAction::ScmpActNotify);
    match (notifies, seccomp.listener_path(), seccomp.listener_metadata()) {
        (true, None, _) => Err(Error::invalid("listenerPath", "is missing for SCMP_ACT_NOTIFY")),
        (_, None, Some(_)) => Err(Error::invalid("listenerMetadata", "is set without listenerPath")),
        _ => Ok(notifies),
    }
}

/// The call to send the notify descriptor with. One that itself notifies would wait for a listener that has not got the
/// descriptor yet, forever.
fn way_out(seccomp: &LinuxSeccomp) -> Result<Send> {
    let is_held = |name: &str| {
        (seccomp.syscalls().iter().flatten())
            .any(|s| s.action() == LinuxSeccompAction::ScmpActNotify && s.names().iter().any(|n| n == name))
    };
    if !is_held("sendmsg") {
        Ok(Send::Message)
    } else if !is_held("sendmmsg") {
        Ok(Send::Messages)
    } else {
        Err(Error::invalid(
            "syscalls",
            "not supported: SCMP_ACT_NOTIFY on both sendmsg and sendmmsg leaves no call to hand the listener over",
        ))
    }
}

/// `SECCOMP_FILTER_FLAG_*` of linux/seccomp.h.
fn flags(seccomp: &LinuxSeccomp, notifies: bool) -> libc::c_ulong {
    const TSYNC: libc::c_ulong = 1 << 0;
    const LOG: libc::c_ulong = 1 << 1;
    const SPEC_ALLOW: libc::c_ulong = 1 << 2;
    const TSYNC_ESRCH: libc::c_ulong = 1 << 4;
    const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    let mut flags = match seccomp.flags() {
        // As the other runtimes: no speculation penalty unless a list of flags leaves it out.
        None => SPEC_ALLOW,
        Some(list) => list.iter().fold(0, |flags, flag| {
            flags
                | match flag {
                    LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
                    LinuxSeccompFilterFlag::SeccompFilterFlagTsync => TSYNC,
                    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
                    LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
                }
        }),
    };
    if notifies {
        flags |= NEW_LISTENER;
        if flags & TSYNC != 0 {
            // Both use the return value; the kernel wants the errno form of TSYNC then.
            flags |= TSYNC_ESRCH;
        }
    } else {
        // It says how notifications are waited for; the kernel rejects it where there are none.
        flags &= !WAIT_KILLABLE_RECV;
    }
    flags
}
