//! What flows through the shim: output to the log and to clients, input to the container.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Shim;
use crate::logs::Stream;
use crate::shim::lifecycle::Running;
use crate::shim::protocol::{STDERR, STDOUT};

/// More than a terminal holds: 64 KiB of buffers and 4 KiB of its line discipline.
const TERMINAL_BYTES_MAX: usize = 128 << 10;

/// How long the last words of a program may be on their way.
const LAG: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Waits for a stream to say more, or that it ends. False when it has ended or says nothing for [`LAG`].
fn more_follows(running: &Running, stream: Stream) -> bool {
    let fd = match stream {
        Stream::Stdout => &running.stdout,
        Stream::Stderr => &running.stderr,
    };
    let Some(fd) = fd else { return false };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&LAG)).is_ok_and(|ready| ready > 0)
}

impl Shim {
    /// Takes what is in a stream at the container's end: it wrote that. Others may hold the stream open and write on for
    /// ever, so no more is taken than it can hold.
    pub(super) fn drain(&mut self, running: &mut Running, stream: Stream, buffer: &mut [u8]) {
        let fd = match stream {
            Stream::Stdout => &running.stdout,
            Stream::Stderr => &running.stderr,
        };
        let Some(fd) = fd else { return };
        let mut left = rustix::pipe::fcntl_getpipe_size(fd).unwrap_or(TERMINAL_BYTES_MAX);
        while left > 0 {
            match self.relay(running, stream, buffer) {
                0 if running.sandbox.streams_lag() && more_follows(running, stream) => {}
                0 => return,
                taken => left = left.saturating_sub(taken),
            }
        }
    }

    /// Takes what a stream has, once; how many bytes that were.
    pub(super) fn relay(&mut self, running: &mut Running, stream: Stream, buffer: &mut [u8]) -> usize {
        let (slot, kind) = match stream {
            Stream::Stdout => (&mut running.stdout, STDOUT),
            Stream::Stderr => (&mut running.stderr, STDERR),
        };
        let Some(fd) = slot else { return 0 };
        buffer[0] = kind;
        match rustix::io::retry_on_intr(|| rustix::io::read(&*fd, &mut buffer[1..])) {
            Ok(n) if n > 0 => {
                // A full disk loses log lines, never the container.
                let _ = self.log.write(stream, &buffer[1..=n]);
                for client in &mut self.clients {
                    if (stream == Stream::Stdout && client.stdout)
                        || (stream == Stream::Stderr && client.stderr)
                    {
                        client.say(&buffer[..=n]);
                    }
                }
                n
            }
            Err(rustix::io::Errno::AGAIN) => 0,
            // EIO is a terminal's way of saying end.
            _ => {
                *slot = None;
                0
            }
        }
    }

    /// Writes input on; what does not fit waits.
    pub(super) fn feed(&mut self, running: &mut Running, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let target = if self.config.tty {
            running.stdout.as_ref()
        } else {
            running.stdin.as_ref()
        };
        let Some(fd) = target else {
            self.input.clear();
            return;
        };
        match rustix::io::write(fd, &self.input) {
            Ok(n) => drop(self.input.drain(..n)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => {
                self.input.clear();
                running.stdin = None;
            }
        }
        if self.input.is_empty()
            && self.input_ended
            && let Some(stdin) = running.stdin.take()
            // A pipe ends when it is closed; a connection half closed says so in order, behind its data.
            && rustix::net::shutdown(&stdin, rustix::net::Shutdown::Write).is_ok()
        {
            running.ended_stdin = Some(stdin);
        }
    }
}
