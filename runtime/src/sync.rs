//! What parent and child say to each other while a process is set up, over one pair of packet sockets.
//!
//! ```text
//! parent (create, exec)                      child (init, or the process of exec)
//!   │ ── clone3 ─────────────────────────────► │
//!   │                                          │   through an intermediate, when namespaces are joined that
//!   │ ◄─────────────────── Init{pid} + pidfd ─ │   only children enter: it clones the rest and ends
//!   │ ── Go ─────────────────────────────────► │
//!   │ writes uid_map, gid_map                  │
//!   │ ── Go ─────────────────────────────────► │   only with a new user namespace
//!   │ ◄───────────────────────────────── Hooks │   only with prestart or createRuntime hooks
//!   │ runs them                                │
//!   │ ── Go ─────────────────────────────────► │
//!   │ ◄────────────────────── Console + master │   only with a terminal
//!   │ ◄─────────────────────────────────── Pid │   only with a seccomp filter that notifies
//!   │ ── Go ─────────────────────────────────► │
//!   │ ◄───────────────────────────────── Ready │
//!   │ ── Go (run, exec; else the FIFO) ──────► │
//!   │ ◄───────────── end of stream, by execve ─│
//! ```
//!
//! At any point the child may say `Failed` and end. Either side sees end of stream when the other dies: a child whose
//! parent was killed ends too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Step};

/// Longest packet. Failures are cut to fit, so no length read from the other side is ever trusted (CVE-2021-43784).
const PACKET_BYTES_MAX: usize = 8192;

/// What the child says.
#[derive(Debug)]
pub enum Message {
    /// The real child: pid as the sender counts it, and its pidfd.
    Init {
        /// In the parent's pid namespace.
        pid: i32,
        /// Names it.
        pidfd: OwnedFd,
    },
    /// Namespaces and mounts are there, the host is still in sight: run the runtime's hooks.
    Hooks,
    /// The terminal's master.
    Console(OwnedFd),
    /// What is my pid on the host?
    Pid,
    /// All is set up but the program.
    Ready,
    /// A step failed.
    Failed(Failure),
}

/// A failure as it crosses the socket.
#[derive(Debug, Deserialize, Serialize)]
pub struct Failure {
    /// The outermost sentence.
    pub step: String,
    /// The rest of the chain.
    pub why: String,
    /// The program and errno, when it is execve or the search for the program that failed.
    pub exec: Option<(String, i32)>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let exec = match error {
            Error::Exec { program, cause } => {
                Some((program.clone(), cause.raw_os_error().unwrap_or(libc::ENOENT)))
            }
            _ => None,
        };
        let mut source = std::error::Error::source(error);
        let mut why = Vec::new();
        while let Some(e) = source {
            why.push(e.to_string());
            source = e.source();
        }
        let (step, why) = match error {
            Error::Init { step, why } => (step.clone(), why.clone()),
            other => (other.to_string(), why.join(": ")),
        };
        Self { step, why, exec }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure.exec {
            Some((program, errno)) => Error::Exec {
                program,
                cause: io::Error::from_raw_os_error(errno),
            },
            None => Error::Init {
                step: failure.step,
                why: failure.why,
            },
        }
    }
}

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    patience: Option<Duration>,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    /// Both ends, close-on-exec.
    ///
    /// # Errors
    ///
    /// The errno of socketpair.
    pub fn pair() -> Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .step("make", "the socket to init")?;
        let end = |socket| Self {
            socket,
            patience: None,
        };
        Ok((end(a), end(b)))
    }

    /// From now on [`hear`](Self::hear) waits at most so long for each word; `None` waits for ever.
    pub fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// What [`set_patience`](Self::set_patience) was told.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// Parent: whether there is something to hear already, the end of the stream included.
    ///
    /// # Errors
    ///
    /// The errno of poll.
    pub fn has_word(&self) -> Result<bool> {
        self.readable(Some(Duration::ZERO))
    }

    fn readable(&self, timeout: Option<Duration>) -> Result<bool> {
        berth_sys::readiness::readable_within(&self.socket, timeout).step("wait for", "init")
    }

    /// Child: says something.
    ///
    /// # Errors
    ///
    /// `EPIPE` when the parent is gone.
    pub fn say(&self, message: &Message) -> Result<()> {
        let mut text;
        let (bytes, fd): (&[u8], _) = match message {
            Message::Init { pid, pidfd } => {
                text = vec![b'I'];
                text.extend_from_slice(&pid.to_ne_bytes());
                (&text, Some(pidfd.as_fd()))
            }
            Message::Hooks => (b"H", None),
            Message::Console(master) => (b"C", Some(master.as_fd())),
            Message::Pid => (b"P", None),
            Message::Ready => (b"R", None),
            Message::Failed(failure) => {
                let cut = |s: &str| s.chars().take(PACKET_BYTES_MAX / 16).collect::<String>();
                let short = Failure {
                    step: cut(&failure.step),
                    why: cut(&failure.why),
                    exec: failure
                        .exec
                        .as_ref()
                        .map(|(program, errno)| (cut(program), *errno)),
                };
                text = vec![b'F'];
                serde_json::to_writer(&mut text, &short).map_err(|e| Error::io("encode", "a failure", e))?;
                (&text, None)
            }
        };
        berth_sys::fdpass::send(&self.socket, bytes, fd.as_slice()).step("tell", "the parent")
    }

    /// Parent: waits for the next message; `None` at end of stream.
    ///
    /// # Errors
    ///
    /// [`Error::Silent`] when patience ends; the errno of recvmsg; anything that is not a message.
    pub fn hear(&self) -> Result<Option<Message>> {
        if let Some(patience) = self.patience
            && !self.readable(self.patience)?
        {
            return Err(Error::Silent {
                silent: "init",
                patience,
            });
        }
        let mut buffer = [0u8; PACKET_BYTES_MAX];
        let (length, mut fds) = match berth_sys::fdpass::receive(&self.socket, &mut buffer) {
            // The child died with our Go unread. That is told first, and once; what it had said is still there.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                berth_sys::fdpass::receive(&self.socket, &mut buffer)
            }
            other => other,
        }
        .step("hear", "init")?;
        let strange = || Error::Init {
            step: "init".into(),
            why: "sent what is not a message".into(),
        };
        let Some((tag, rest)) = buffer[..length].split_first() else {
            return Ok(None);
        };
        let message = match (tag, fds.pop()) {
            (b'I', Some(pidfd)) => {
                let pid = i32::from_ne_bytes(rest.try_into().map_err(|_| strange())?);
                Message::Init { pid, pidfd }
            }
            (b'H', None) => Message::Hooks,
            (b'C', Some(master)) => Message::Console(master),
            (b'P', None) => Message::Pid,
            (b'R', None) => Message::Ready,
            (b'F', None) => Message::Failed(serde_json::from_slice(rest).map_err(|_| strange())?),
            _ => return Err(strange()),
        };
        Ok(Some(message))
    }

    /// Parent: lets the child go on, and tells it its pid.
    ///
    /// # Errors
    ///
    /// `EPIPE` when the child is gone.
    pub fn go(&self, pid: i32) -> Result<()> {
        berth_sys::fdpass::send(&self.socket, &pid.to_ne_bytes(), &[]).step("wake", "init")
    }

    /// Child: waits for [`go`](Self::go); returns the pid.
    ///
    /// # Errors
    ///
    /// The parent is gone.
    pub fn wait_go(&self) -> Result<i32> {
        let mut pid = [0u8; 4];
        match berth_sys::fdpass::receive(&self.socket, &mut pid).step("wait for", "the parent")? {
            (4, _) => Ok(i32::from_ne_bytes(pid)),
            _ => Err(Error::Init {
                step: "init".into(),
                why: "its parent is gone".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_crosses_whole_and_a_huge_one_is_cut() {
        let (child, parent) = Channel::pair().expect("pair");
        let error = Error::io(
            "mount",
            "x".repeat(100_000),
            io::Error::from_raw_os_error(libc::EPERM),
        );
        child.say(&Message::Failed(Failure::from(&error))).expect("fits");
        let Ok(Some(Message::Failed(failure))) = parent.hear() else {
            panic!("a failure")
        };
        assert!(failure.step.starts_with("cannot mount xxx"));
        assert!(failure.why.contains("not permitted"));
    }

    #[test]
    fn a_failure_reads_the_same_on_the_other_side() {
        let step = "cannot set process.oomScoreAdj to -5".to_owned();
        for error in [
            Error::Init {
                step,
                why: "cannot write: Permission denied".into(),
            },
            Error::invalid("process.cwd", "must be an absolute path"),
            Error::io("mount", "x", io::Error::from_raw_os_error(libc::EPERM)),
        ] {
            let said = error.chain();
            assert_eq!(Error::from(Failure::from(&error)).chain(), said);
        }
    }

    #[test]
    fn descriptors_travel_with_their_message_and_silence_is_the_end() {
        let (child, parent) = Channel::pair().expect("pair");
        let fd = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        child.say(&Message::Console(fd)).expect("say");
        assert!(matches!(parent.hear(), Ok(Some(Message::Console(_)))));
        drop(child);
        assert!(matches!(parent.hear(), Ok(None)));
    }

    #[test]
    fn garbage_is_refused() {
        let (child, parent) = Channel::pair().expect("pair");
        for bytes in [&b"X"[..], b"Iab", b"F{", b"C"] {
            berth_sys::fdpass::send(&child.socket, bytes, &[]).expect("send");
            assert!(parent.hear().is_err(), "{bytes:?}");
        }
    }
}
