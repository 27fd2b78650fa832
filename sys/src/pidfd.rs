//! Naming processes so that a reused pid is never mistaken for the one meant.

#![allow(unsafe_code)] // rustix's waitid does not say whom it found

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// Start time of a process in clock ticks since boot (field 22 of `/proc/PID/stat`) and its state letter (field 3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stat {
    /// `R`, `S`, `D`, `Z`, … of `proc_pid_stat(5)`.
    pub state: char,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// A zombie has ended; whether its parent has collected it does not matter to anyone else.
    #[must_use]
    pub fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads `/proc/PID/stat`.
///
/// # Errors
///
/// `NotFound` when there is no such process; `InvalidData` when the file does not read as the man page says.
pub fn stat(pid: i32) -> io::Result<Stat> {
    let mut buffer = [0u8; 1024];
    let mut path = String::with_capacity(24);
    path.push_str("/proc/");
    path.push_str(&pid.to_string());
    path.push_str("/stat");
    let fd = rustix::fs::open(
        path.as_str(),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let length = match rustix::io::read(&fd, &mut buffer) {
        Err(rustix::io::Errno::SRCH) => return Err(io::ErrorKind::NotFound.into()),
        other => other?,
    };
    parse_stat(&buffer[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The command name (field 2) may hold spaces and parentheses; everything after the *last* `)` is plain.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let end = line.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(line.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

/// Opens a process by pid *and* start time: `None` when it ended, whoever has its number now.
///
/// # Errors
///
/// What pidfd_open(2) or reading `/proc` answers, but for "no such process".
pub fn open_same(pid: i32, start_time: u64) -> io::Result<Option<OwnedFd>> {
    let Some(named) = Pid::from_raw(pid) else {
        return Ok(None);
    };
    let fd = match rustix::process::pidfd_open(named, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
        other => other?,
    };
    // Read after opening: if the times agree now, the descriptor names the process we mean.
    match stat(pid) {
        Ok(stat) if stat.start_time == start_time && !stat.is_dead() => Ok(Some(fd)),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sends a signal by number; `pidfd_send_signal(2)`. Unlike rustix's, this takes real-time signals too.
///
/// # Errors
///
/// The errno of pidfd_send_signal.
pub fn send_signal<Fd: AsFd>(pidfd: Fd, signal: i32) -> io::Result<()> {
    crate::credentials::pidfd_send_signal_raw(pidfd.as_fd(), signal)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
}

impl Exit {
    /// The shell's convention: 128 plus the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for a child of ours to end and collects it. Blocks.
///
/// # Errors
///
/// `ECHILD` when the descriptor names no child of this process.
pub fn wait<Fd: AsFd>(pidfd: Fd) -> io::Result<Exit> {
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
    })?
    .ok_or(io::ErrorKind::WouldBlock)?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => return Err(io::ErrorKind::InvalidData.into()),
    })
}

/// The pid of some child of ours that has ended, left there to be collected; `None` when no such child has. Does not block.
///
/// # Errors
///
/// `ECHILD` when there is no child at all.
pub fn ended_child() -> io::Result<Option<i32>> {
    // SAFETY: waitid fills the info it is given, which lives through the call; with WNOHANG and nothing to tell it leaves
    // the pid zero, as the man page promises of an info zeroed before.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &raw mut info, flags) != 0 {
            return Err(io::Error::last_os_error());
        }
        info.si_pid()
    };
    Ok((pid != 0).then_some(pid))
}

/// Whether the process ended before `timeout` passed (`None` waits forever). It need not be a child.
///
/// # Errors
///
/// The errno of poll.
pub fn ended_within<Fd: AsFd>(pidfd: Fd, timeout: Option<std::time::Duration>) -> io::Result<bool> {
    crate::readiness::readable_within(pidfd, timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let line = b"12 (a) R 9 (b) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 1 2\n";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                state: 'S',
                start_time: 4711
            })
        );
    }

    #[test]
    fn a_truncated_line_is_refused() {
        assert_eq!(parse_stat(b"12 (x) S 1 2"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = i32::try_from(std::process::id()).expect("pids fit in i32");
        let now = stat(me).expect("own stat");
        assert!(open_same(me, now.start_time).expect("open").is_some());
        assert!(open_same(me, now.start_time + 1).expect("open").is_none());
    }
}
