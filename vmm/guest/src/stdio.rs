//! The standard streams of a new process: its ends and ours.

use std::os::fd::OwnedFd;

use berth_runtime::{Console, Stdio};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{At, Result};
use crate::protocol::{Stream, Streams};

/// What the runtime is given, and what is kept.
#[derive(Debug)]
pub struct Ends {
    /// The process's.
    pub stdio: Stdio,
    /// How its terminal comes to us.
    pub console: Console,
    /// Ours, non-blocking. A terminal's is known only when the process exists.
    pub ours: Vec<(Stream, OwnedFd)>,
}

impl Ends {
    /// Makes the pipes.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn new(streams: Streams) -> Result<Ends> {
        let Streams::Pipes {
            stdin,
            stdout,
            stderr,
        } = streams
        else {
            return Ok(Ends {
                stdio: Stdio::Inherit,
                console: Console::Receive,
                ours: Vec::new(),
            });
        };
        let mut ours = Vec::with_capacity(3);
        let mut one = |stream: Stream, wanted: bool| -> Result<OwnedFd> {
            if !wanted {
                return rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                    .at("open", "/dev/null");
            }
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make", "a pipe")?;
            let (theirs, kept) = match stream {
                Stream::Stdin => (read, write),
                _ => (write, read),
            };
            // Of the two ends ours alone: the process's blocks, as programs expect.
            rustix::io::ioctl_fionbio(&kept, true).at("prepare", "a pipe")?;
            ours.push((stream, kept));
            Ok(theirs)
        };
        let theirs = [
            one(Stream::Stdin, stdin)?,
            one(Stream::Stdout, stdout)?,
            one(Stream::Stderr, stderr)?,
        ];
        Ok(Ends {
            stdio: Stdio::Fds(theirs),
            console: Console::None,
            ours,
        })
    }
}

/// Our ends together with the terminal's master, if there is one.
///
/// # Errors
///
/// The master cannot be made non-blocking.
pub fn kept(mut ours: Vec<(Stream, OwnedFd)>, master: Option<OwnedFd>) -> Result<Vec<(Stream, OwnedFd)>> {
    if let Some(master) = master {
        rustix::io::ioctl_fionbio(&master, true).at("prepare", "the terminal")?;
        ours.push((Stream::Terminal, master));
    }
    Ok(ours)
}
