//! The one poll(2): which descriptors the loop waits on, and which of them have something.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Shim;
use crate::network::dns::Responder;
use crate::shim::health::Monitor;
use crate::shim::lifecycle::Running;

/// What there is to do.
pub(super) struct Ready {
    pub(super) init: bool,
    pub(super) listener: bool,
    pub(super) children: bool,
    pub(super) out: bool,
    pub(super) err: bool,
    pub(super) input: bool,
    pub(super) dns: bool,
    pub(super) health: bool,
    pub(super) clients: Vec<bool>,
}

impl Shim {
    /// Blocks until something is to be done; none when a signal came first.
    pub(super) fn wait(&mut self, running: &Running) -> Option<Ready> {
        // A client that lags holds the streams back, as a terminal would; the log and memory stay whole and bounded.
        let flowing = self.clients.iter().all(|c| c.pending.is_empty());
        let input = !self.input.is_empty();
        let listening = self.listening();
        let mut fds = vec![
            PollFd::from_borrowed_fd(running.sandbox.ended(), PollFlags::IN),
            PollFd::new(&self.listener, listening),
            PollFd::from_borrowed_fd(self.orphans.descriptor(), PollFlags::IN),
        ];
        let none = PollFlags::empty();
        let stream = |fd: &Option<OwnedFd>| fd.is_some() && flowing;
        let (out, err) = (stream(&running.stdout), stream(&running.stderr));
        let target = running.stdin.as_ref().or(running.stdout.as_ref());
        let optional = [
            (running.stdout.as_ref().filter(|_| out), PollFlags::IN),
            (running.stderr.as_ref().filter(|_| err), PollFlags::IN),
            (target.filter(|_| input), PollFlags::OUT),
        ];
        let mut places = [None; 3];
        for (place, (fd, flags)) in places.iter_mut().zip(&optional) {
            if let Some(fd) = fd {
                *place = Some(fds.len());
                fds.push(PollFd::new(*fd, *flags));
            }
        }
        let dns = running.responder.as_ref().map(|r| {
            fds.push(PollFd::from_borrowed_fd(borrow(r), PollFlags::IN));
            fds.len() - 1
        });
        let probes = fds.len();
        if let Some(health) = &self.health {
            fds.extend(
                health
                    .descriptors()
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            );
        }
        let first_client = fds.len();
        for client in &self.clients {
            // Who does not take the answers is asked nothing more: they would pile up here.
            let (read, write) = if client.pending.is_empty() {
                (if input { none } else { PollFlags::IN }, none)
            } else {
                (none, PollFlags::OUT)
            };
            fds.push(PollFd::new(&client.socket, read | write));
        }
        let deadline = [
            self.kill_at,
            self.deaf_until,
            self.health.as_ref().and_then(Monitor::deadline),
            running.responder.as_ref().and_then(Responder::deadline),
        ]
        .into_iter()
        .flatten()
        .min();
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return None;
        }
        let on = |place: Option<usize>| place.is_some_and(|i| !fds[i].revents().is_empty());
        let now = Instant::now();
        Some(Ready {
            init: on(Some(0)),
            listener: on(Some(1)),
            children: on(Some(2)),
            out: on(places[0]),
            err: on(places[1]),
            input: on(places[2]),
            dns: on(dns)
                || running
                    .responder
                    .as_ref()
                    .and_then(Responder::deadline)
                    .is_some_and(|at| now >= at),
            health: fds[probes..first_client]
                .iter()
                .any(|fd| !fd.revents().is_empty())
                || self
                    .health
                    .as_ref()
                    .and_then(Monitor::deadline)
                    .is_some_and(|at| now >= at),
            clients: fds[first_client..]
                .iter()
                .map(|fd| !fd.revents().is_empty())
                .collect(),
        })
    }
}

#[allow(unsafe_code)] // the responder gives its descriptor by number
fn borrow(responder: &Responder) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open and stays the same for the responder's life (its documentation), which the returned
    // borrow does not outlive.
    unsafe { BorrowedFd::borrow_raw(responder.descriptor()) }
}

pub(super) fn timespec(d: Duration) -> Timespec {
    // A fraction of a nanosecond early would spin; poll(2) rounds up to its own grain.
    Timespec {
        tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: d.subsec_nanos().into(),
    }
}
