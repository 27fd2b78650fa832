//! Staying in front of a container's process: signals passed on, its terminal copied, its exit code ours.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;

use berth_sys::{fds, pidfd, signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios};

use super::{Failure, Outcome};

/// Signals are held from before the process exists, so none is lost between its start and our waiting.
pub struct Foreground {
    signals: OwnedFd,
}

fn failed(what: &str, e: impl std::fmt::Display) -> Failure {
    Failure::new(format!("cannot {what}: {e}"))
}

/// Restores the caller's terminal however we leave.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = rustix::termios::tcgetattr(stdin) else {
            return Self(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw);
        Self(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

impl Foreground {
    /// Call before the process is made.
    pub fn prepare() -> Result<Self, Failure> {
        Ok(Self {
            signals: signals::block_all().map_err(|e| failed("hold signals", e))?,
        })
    }

    /// Waits for a child to end.
    pub fn wait(self, process: OwnedFd, console: Option<OwnedFd>) -> Outcome {
        let raw = console.as_ref().map(|_| Raw::enter());
        if let Some(master) = &console {
            copy_size(master);
        }
        self.watch(&process, console.as_ref())
            .map_err(|e| failed("wait for the process", e))?;
        drop(raw);
        let exit = pidfd::wait(&process).map_err(|e| failed("wait for the process", e))?;
        Ok(ExitCode::from(u8::try_from(exit.code() & 0xff).unwrap_or(255)))
    }

    fn watch(&self, process: &OwnedFd, console: Option<&OwnedFd>) -> io::Result<()> {
        let stdin = rustix::stdio::stdin();
        let mut stdin_open = console.is_some();
        loop {
            let mut set = vec![
                PollFd::new(process, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            if let Some(master) = console {
                set.push(PollFd::new(master, PollFlags::IN));
                if stdin_open {
                    set.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
                }
            }
            match poll(&mut set, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let ready: Vec<bool> = set.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[1] {
                self.pass_on(process, console)?;
            }
            if let Some(master) = console {
                if ready[2] && !copy(master.as_fd(), rustix::stdio::stdout()) && ready[0] {
                    return Ok(());
                }
                if stdin_open && ready.get(3) == Some(&true) {
                    stdin_open = copy(stdin, master.as_fd());
                }
                // What was written last is still in the terminal: leave only when it is empty.
                if ready[0] && !ready[2] {
                    return Ok(());
                }
            } else if ready[0] {
                return Ok(());
            }
        }
    }

    fn pass_on(&self, process: &OwnedFd, console: Option<&OwnedFd>) -> io::Result<()> {
        while let Some(signal) = signals::next(&self.signals)? {
            match (signal, console) {
                // Ours: hooks and intermediates end, and Go programs that call us use SIGURG among themselves.
                (libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE, _) => {}
                (libc::SIGWINCH, Some(master)) => copy_size(master),
                // It may have ended just now.
                _ => drop(pidfd::send_signal(process, signal)),
            }
        }
        Ok(())
    }
}

fn copy_size(master: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

/// One read's worth; false at the end.
fn copy(from: impl AsFd, to: impl AsFd) -> bool {
    let mut buffer = [0u8; 8192];
    match rustix::io::read(from, &mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                match rustix::io::write(&to, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Err(_) => return false,
                }
            }
            true
        }
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
        // EIO: the last process closed the terminal.
        Err(_) => false,
    }
}

/// How many descriptors to pass, with those of systemd's socket activation; all must be open, or ours could take
/// their numbers.
pub fn preserved(asked: u32) -> Result<u32, Failure> {
    let listen = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|n| n.parse::<u32>().ok())
        .unwrap_or(0);
    let count = asked.saturating_add(listen);
    for fd in 3..3u32.saturating_add(count) {
        let open = i32::try_from(fd).is_ok_and(fds::is_open);
        if !open {
            return Err(Failure::new(format!(
                "cannot preserve descriptor {fd}: it is not open"
            )));
        }
        // Ours are born close-on-exec; these may have been too, and are passed all the same.
        let _ = fds::set_cloexec(i32::try_from(fd).unwrap_or(i32::MAX), false);
    }
    debug_assert!(rustix::stdio::stdin().as_raw_fd() == 0);
    Ok(count)
}
