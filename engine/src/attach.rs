//! `attach`: our terminal or pipes joined to a container's streams, over its shim.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags};
use rustix::termios::{OptionalActions, Termios};

use crate::container::Verb;
use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::flags::InvalidFlag;
use crate::id::ContainerId;
use crate::shim::protocol::{self, Failure, PACKET_MAX, Packet, Reply, Request};

/// The key sequence that leaves a container running; `ctrl-p,ctrl-q` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        DetachKeys(vec![0x10, 0x11])
    }
}

impl std::str::FromStr for DetachKeys {
    type Err = InvalidFlag;
    /// `ctrl-p,ctrl-q` or single characters, separated by commas.
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = || InvalidFlag::new("detach keys", s, "expected keys such as ctrl-p,ctrl-q or a,b");
        let mut keys = Vec::new();
        for key in s.split(',') {
            keys.push(match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(c), _) => match c.as_bytes() {
                    [c] if c.is_ascii_alphabetic() => c.to_ascii_lowercase() - b'a' + 1,
                    [c] if b"@[\\]^_".contains(c) => c - b'@',
                    _ => return Err(bad()),
                },
                (None, [c]) if c.is_ascii() => *c,
                _ => return Err(bad()),
            });
        }
        Ok(DetachKeys(keys))
    }
}

/// Which streams to join, and how.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// Forward our standard input.
    pub stdin: bool,
    /// Print its standard output.
    pub stdout: bool,
    /// Print its standard error.
    pub stderr: bool,
    /// Keys that detach; only with a terminal.
    pub detach_keys: DetachKeys,
    /// Pass signals we get on to its init.
    pub sig_proxy: bool,
}

impl Default for AttachOptions {
    fn default() -> Self {
        AttachOptions {
            stdin: false,
            stdout: true,
            stderr: true,
            detach_keys: DetachKeys::default(),
            sig_proxy: true,
        }
    }
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The container ended with this code.
    Exited(i32),
    /// The user detached; it goes on.
    Detached,
}

/// A connection to a container's streams.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    options: AttachOptions,
    tty: bool,
    /// The exit code, when the end came before we were let in.
    ended: Option<i32>,
}

impl Session {
    pub(crate) fn new(socket: OwnedFd, options: AttachOptions, tty: bool) -> Session {
        Session {
            socket,
            options,
            tty,
            ended: None,
        }
    }

    /// Relays until the container ends or the user detaches. Puts the terminal into raw mode when the container has
    /// one, and back.
    ///
    /// # Errors
    ///
    /// The shim went away, or our output cannot be written.
    pub fn run(self) -> Result<Ended> {
        if let Some(code) = self.ended {
            return Ok(Ended::Exited(code));
        }
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let raw = (self.tty && self.options.stdin)
            .then(|| Raw::enter(stdin.as_fd()))
            .flatten();
        let signals = berth_sys::signals::block_all().at("watch", "signals")?;
        if self.tty {
            self.resize(stdout.as_fd());
        }
        let mut buffer = vec![0u8; PACKET_MAX];
        let mut input_open = self.options.stdin;
        let mut matched = 0;
        loop {
            let mut fds = vec![
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            if input_open {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("poll", "the shim's socket", e)),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[0] {
                match protocol::receive(&self.socket, &mut buffer, RecvFlags::empty()) {
                    Ok(Packet::Stdout(bytes)) => {
                        write_all(stdout.as_fd(), bytes).at("write", "standard output")?
                    }
                    Ok(Packet::Stderr(bytes)) => {
                        write_all(stderr.as_fd(), bytes).at("write", "standard error")?
                    }
                    Ok(Packet::Reply(Reply::Exit { code })) => return Ok(Ended::Exited(code)),
                    Ok(Packet::Reply(
                        Reply::Failed(Failure::Other { .. }) | Reply::Done | Reply::Started,
                    )) => {}
                    Ok(_) => return Err(Error::ShimDied(String::new())),
                    Err(e) => return Err(Error::io("read from", "the shim", e)),
                }
            }
            if ready[1] {
                while let Some(signal) = berth_sys::signals::next(&signals).at("read", "signals")? {
                    match signal {
                        libc::SIGWINCH => self.resize(stdout.as_fd()),
                        libc::SIGCHLD
                        | libc::SIGPIPE
                        | libc::SIGURG
                        | libc::SIGTTIN
                        | libc::SIGTTOU
                        | libc::SIGTSTP
                        | libc::SIGCONT => {}
                        other if self.options.sig_proxy => self.ask(&Request::Kill { signal: other })?,
                        // Ours to obey: we leave, the container stays.
                        _ => return Ok(Ended::Detached),
                    }
                }
            }
            if ready.get(2) == Some(&true) {
                let n = rustix::io::read(&stdin, &mut buffer[1..]).unwrap_or(0);
                if n == 0 {
                    input_open = false;
                    self.ask(&Request::StdinEof)?;
                    continue;
                }
                buffer[0] = protocol::STDIN;
                if raw.is_some() && self.options.detach_keys.seen(&mut matched, &buffer[1..=n]) {
                    return Ok(Ended::Detached);
                }
                // The shim is gone when this fails; the next read says so.
                let _ = protocol::transmit(&self.socket, &buffer[..=n], SendFlags::empty());
            }
        }
    }

    fn ask(&self, request: &Request) -> Result<()> {
        match protocol::transmit(&self.socket, &request.encode(), SendFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            Err(e) => Err(Error::io("write to", "the shim", e)),
        }
    }

    fn resize(&self, terminal: BorrowedFd<'_>) {
        if let (true, Ok(size)) = (self.tty, rustix::termios::tcgetwinsize(terminal)) {
            let _ = self.ask(&Request::Resize {
                rows: size.ws_row,
                columns: size.ws_col,
            });
        }
    }
}

pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl DetachKeys {
    /// Whether the sequence ends within these bytes; `matched` is how much of it has been typed.
    pub(crate) fn seen(&self, matched: &mut usize, bytes: &[u8]) -> bool {
        for b in bytes {
            *matched = if self.0.get(*matched) == Some(b) {
                *matched + 1
            } else {
                usize::from(self.0.first() == Some(b))
            };
            if *matched == self.0.len() {
                return true;
            }
        }
        false
    }
}

/// A terminal in raw mode, put back when this goes.
#[derive(Debug)]
pub(crate) struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    pub(crate) fn enter(terminal: BorrowedFd<'_>) -> Option<Raw> {
        let before = rustix::termios::tcgetattr(terminal).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(terminal, OptionalActions::Now, &raw).ok()?;
        Some(Raw {
            terminal: terminal.try_clone_to_owned().ok()?,
            before,
        })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

impl Engine {
    /// Joins a running container's streams.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] when it does not run; [`Error::Shim`] when too many are attached already.
    pub fn attach(&self, id: &ContainerId, options: &AttachOptions) -> Result<Session> {
        let config = self.config(id)?;
        let socket = self.shim(id, &config, "attach to", Verb::Attach)?;
        let request = Request::Attach {
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let ended = self.ask(&socket, &config, &request, Some(protocol::PATIENCE))?;
        let mut session = Session::new(socket, options.clone(), config.tty);
        session.ended = ended;
        Ok(session)
    }

    /// Connects to a container's shim.
    pub(crate) fn shim(
        &self,
        id: &ContainerId,
        config: &crate::ContainerConfig,
        verb: &'static str,
        wanted: Verb,
    ) -> Result<OwnedFd> {
        let wrong = |status| Error::Wrong {
            verb,
            name: config.name.to_string(),
            status,
        };
        let until = Instant::now() + protocol::PATIENCE;
        loop {
            let status = self.state(id)?.status;
            if !status.allows(wanted) {
                return Err(wrong(status));
            }
            match protocol::connect(&self.paths.run_dir(id)) {
                Ok(socket) => return Ok(socket),
                // At its end the shim closes its door, then writes the record: a moment until that can be read. A shim
                // that died between the two is found out by its lock.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) if Instant::now() < until => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED | rustix::io::Errno::AGAIN) => {
                    return Err(Error::ShimSilent {
                        name: config.name.to_string(),
                    });
                }
                Err(e) => {
                    let path = self.paths.run_dir(id).join("shim.sock");
                    return Err(Error::io("connect to", path, e));
                }
            }
        }
    }
}
