//! Signals as a descriptor, for a process that waits for a child and passes on what it is sent.

#![allow(unsafe_code)] // sigprocmask(2), signalfd(2) and what runs between fork and exec have no safe form

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Blocks every signal and returns a non-blocking, close-on-exec descriptor that reads them.
///
/// # Errors
///
/// The errno of sigprocmask or signalfd.
pub fn block_all() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sigset_t is a valid value; sigfillset overwrites it.
    let all = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        all
    };
    block(&all)
}

/// Blocks one signal, unblocks all others, and returns a non-blocking, close-on-exec descriptor that reads it.
///
/// # Errors
///
/// `EINVAL` when there is no such signal; the errno of sigprocmask or signalfd.
pub fn block_only(signal: i32) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sigset_t is a valid value; sigemptyset overwrites it and sigaddset checks the number.
    let one = unsafe {
        let mut one: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut one);
        if libc::sigaddset(&raw mut one, signal) != 0 {
            return Err(io::Error::last_os_error());
        }
        one
    };
    block(&one)
}

/// Signals held back from this thread, and from threads it starts meanwhile, until this is dropped. Those still pending then take
/// effect. Stays on its thread, whose mask it gives back.
#[derive(Debug)]
pub struct Held {
    signals: OwnedFd,
    before: libc::sigset_t,
    not_send: std::marker::PhantomData<*const ()>,
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: `before` is the set sigprocmask filled in when this was made.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Holds these signals back; they are read from what is returned with [`next`]. One that is ignored stays ignored: once blocked it
/// would be delivered, and nohup(1) would have been in vain.
///
/// # Errors
///
/// `EINVAL` when there is no such signal; the errno of sigaction, sigprocmask or signalfd.
pub fn hold(signals: &[i32]) -> io::Result<Held> {
    // SAFETY: all-zero sigset_t and sigaction are valid values; the sets are initialised by sigemptyset or sigprocmask before
    // they are read, sigaction with no new action only fills in the old one, and signalfd's descriptor is nobody else's.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) != 0 {
                return Err(io::Error::last_os_error());
            }
            if action.sa_sigaction != libc::SIG_IGN {
                libc::sigaddset(&raw mut set, signal);
            }
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let signals = OwnedFd::from_raw_fd(fd);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Held {
            signals,
            before,
            not_send: std::marker::PhantomData,
        })
    }
}

/// The mask becomes `set`.
fn block(set: &libc::sigset_t) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by our callers; signalfd returns a descriptor nobody else has.
    unsafe {
        if libc::sigprocmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

/// Lets the command's process begin with no signal blocked, whatever we block: std passes the mask on.
pub fn unblock_at_exec(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes async-signal-safe calls alone (signal-safety(7)); the set is
    // initialised by sigemptyset before it is read.
    unsafe {
        command.pre_exec(|| {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Has the command's process killed when the thread that starts it ends, however that ends: `PR_SET_PDEATHSIG` of `prctl(2)`.
/// A program that changes its user loses it.
pub fn kill_with_starter(command: &mut Command) {
    let starter = std::process::id();
    // SAFETY: between fork and exec the closure makes async-signal-safe calls alone (signal-safety(7)), without pointers.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // It may have ended before that.
            if libc::getppid().cast_unsigned() != starter {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Sends a signal to every process this one may signal, but for PID 1 and itself: for the PID 1 of a pid namespace, to all in it;
/// `kill(2)` with -1. To have nobody left to send it to is fine.
///
/// # Errors
///
/// `EPERM` for a process that is not PID 1: it would end the whole machine.
pub fn send_to_all_others(signal: i32) -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    // SAFETY: no pointers.
    if unsafe { libc::kill(-1, signal) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        e => Err(e),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn it_does_not_outlive_the_thread_that_started_it() {
        let starter = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            kill_with_starter(command.arg("1000"));
            command.spawn().expect("start sleep")
        });
        let mut child = starter.join().expect("it does not panic");
        assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGKILL));
    }
}
