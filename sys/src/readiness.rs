//! Waiting for one descriptor, with an end to it.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Whether there is something to read, or nothing ever more, before `timeout` passed (`None` waits forever); `poll(2)`.
///
/// # Errors
///
/// The errno of poll.
pub fn readable_within<Fd: AsFd>(fd: Fd, timeout: Option<Duration>) -> io::Result<bool> {
    // A timeout past the clock's end is for ever.
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let spec = left.and_then(|l| Timespec::try_from(l).ok());
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, spec.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
