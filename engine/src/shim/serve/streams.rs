//! What flows through the shim: output to the log and to clients, input to the container.

use super::Shim;
use crate::logs::Stream;
use crate::shim::lifecycle::Running;
use crate::shim::protocol::{STDERR, STDOUT};

impl Shim {
    /// Takes what a stream has, once; whether there may be more.
    pub(super) fn relay(&mut self, running: &mut Running, stream: Stream, buffer: &mut [u8]) -> bool {
        let (slot, kind) = match stream {
            Stream::Stdout => (&mut running.stdout, STDOUT),
            Stream::Stderr => (&mut running.stderr, STDERR),
        };
        let Some(fd) = slot else { return false };
        buffer[0] = kind;
        match rustix::io::read(&*fd, &mut buffer[1..]) {
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
                true
            }
            Err(rustix::io::Errno::AGAIN) => false,
            Err(rustix::io::Errno::INTR) => true,
            // EIO is a terminal's way of saying end.
            _ => {
                *slot = None;
                false
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
        if self.input.is_empty() && self.input_ended {
            running.stdin = None;
        }
    }
}
