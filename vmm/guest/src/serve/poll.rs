//! The one poll(2): which descriptors the loop waits on, and which of them have something.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::{CONVERSATIONS_MAX, Server};
use crate::error::{At, Result};
use crate::restored::Watch;

/// What there is to do.
pub(super) struct Ready {
    pub(super) signals: bool,
    pub(super) listener: bool,
    pub(super) conversations: Vec<bool>,
    pub(super) flows: Vec<bool>,
}

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

impl Server {
    /// Blocks until something is to be done.
    pub(super) fn wait(&mut self) -> Result<Ready> {
        self.deaf_until = self.deaf_until.filter(|until| *until > Instant::now());
        let deaf = self.deaf_until.is_some() || self.conversations.len() >= CONVERSATIONS_MAX;
        let listening = if deaf { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.listener, listening),
        ];
        let first_conversation = fds.len();
        fds.extend(
            self.conversations
                .iter()
                .map(|one| PollFd::from_borrowed_fd(one.socket(), one.interest())),
        );
        // Where each flow's descriptors are: only those it waits for, since an end that has hung up is always ready.
        let mut places = Vec::with_capacity(self.flows.len());
        for flow in &self.flows {
            let from = fds.len();
            let (end, peer) = flow.interests();
            if !end.is_empty() {
                fds.push(PollFd::from_borrowed_fd(flow.end(), end));
            }
            if let Some(fd) = flow.peer().filter(|_| !peer.is_empty()) {
                fds.push(PollFd::from_borrowed_fd(fd, peer));
            }
            places.push((from..fds.len(), flow.is_due()));
        }
        let timeout = if places.iter().any(|(_, due)| *due) {
            Some(AT_ONCE)
        } else {
            let look = self.restored.as_ref().map(Watch::due);
            let next = self.deaf_until.into_iter().chain(look).min();
            let left = next.map(|until| until.saturating_duration_since(Instant::now()));
            left.and_then(|left| Timespec::try_from(left).ok())
        };
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            // Nothing is said about any descriptor then; the next turn asks again.
            Err(Errno::INTR) => fds.iter_mut().for_each(PollFd::clear_revents),
            Err(e) => return Err(e).at("wait for", "anything to do"),
        }
        let on = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok(Ready {
            signals: on(&fds[0]),
            listener: on(&fds[1]),
            conversations: fds[first_conversation..first_conversation + self.conversations.len()]
                .iter()
                .map(on)
                .collect(),
            flows: places
                .into_iter()
                .map(|(range, due)| due || fds[range].iter().any(on))
                .collect(),
        })
    }
}

/// Of a connection whose other side sends no more: whether it takes nothing more either. None while it may still send.
pub(super) fn has_hung_up(socket: BorrowedFd<'_>) -> Option<bool> {
    let mut fds = [PollFd::new(&socket, PollFlags::RDHUP)];
    match poll(&mut fds, Some(&AT_ONCE)) {
        Ok(_) if fds[0].revents().is_empty() => None,
        // Nothing, sent to one that takes nothing, fails all the same (EPIPE).
        Ok(_) => {
            let sent = rustix::net::send(socket.as_fd(), &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            Some(!matches!(sent, Ok(_) | Err(Errno::AGAIN)))
        }
        Err(_) => None,
    }
}
