//! The loop of the shim: poll(2) on the responder's descriptor until its deadline.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use berth_engine::network::DnsOptions;
use berth_engine::network::dns::Responder;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::host::{Host, Joined};

/// How long nothing must happen before a clock in a hurry goes on to the next deadline.
const QUIET: Duration = Duration::from_millis(50);

/// A responder at work. Its clock is the machine's plus what was skipped.
pub(crate) struct Shim {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    wake: OwnedFd,
    is_over: AtomicBool,
    is_hurried: AtomicBool,
    rounds: AtomicUsize,
    skipped: Mutex<Duration>,
}

impl Shared {
    fn now(&self) -> Instant {
        Instant::now() + *self.skipped.lock().unwrap()
    }

    fn wake(&self) {
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).unwrap();
    }
}

impl Shim {
    pub(crate) fn serve(host: &Host, id: &str) -> Self {
        Self::serve_with(host, id, &DnsOptions::default())
    }

    pub(crate) fn serve_with(host: &Host, id: &str, options: &DnsOptions) -> Self {
        Self::run(Responder::bind(&host.paths, id, options).unwrap())
    }

    /// That of a microVM.
    pub(crate) fn serve_guest(host: &Host, id: &str, guest: &mut Joined) -> Self {
        let sockets = guest.attachment.name_server.take().unwrap();
        let options = DnsOptions::default();
        Self::run(Responder::of_guest(&host.paths, id, &options, sockets, &guest.endpoints).unwrap())
    }

    fn run(mut responder: Responder) -> Self {
        let shared = Arc::new(Shared {
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap(),
            is_over: AtomicBool::new(false),
            is_hurried: AtomicBool::new(false),
            rounds: AtomicUsize::new(0),
            skipped: Mutex::default(),
        });
        let ours = shared.clone();
        let thread = std::thread::spawn(move || run(&mut responder, &ours));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Sets the clock ahead.
    pub(crate) fn skip(&self, time: Duration) {
        *self.shared.skipped.lock().unwrap() += time;
        self.shared.wake();
    }

    /// From now on a deadline is reached as soon as nothing else happens.
    pub(crate) fn hurry(&self) {
        self.shared.is_hurried.store(true, Ordering::SeqCst);
        self.shared.wake();
    }

    /// How much the clock was set ahead so far.
    pub(crate) fn skipped(&self) -> Duration {
        *self.shared.skipped.lock().unwrap()
    }

    /// How often the responder had something to do.
    pub(crate) fn rounds(&self) -> usize {
        self.shared.rounds.load(Ordering::SeqCst)
    }

    /// Whether the responder did not panic.
    pub(crate) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.shared.wake();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

fn run(responder: &mut Responder, shared: &Shared) {
    loop {
        let deadline = responder.deadline();
        let mut patience = deadline.map(|at| at.saturating_duration_since(shared.now()));
        let is_hurried = shared.is_hurried.load(Ordering::SeqCst);
        if is_hurried {
            patience = patience.map(|time| time.min(QUIET));
        }
        // SAFETY: the responder owns the descriptor and outlives the poll.
        let fd = unsafe { BorrowedFd::borrow_raw(responder.descriptor()) };
        let mut fds = [
            PollFd::from_borrowed_fd(fd, PollFlags::IN),
            PollFd::new(&shared.wake, PollFlags::IN),
        ];
        let timeout = patience.map(|time| Timespec::try_from(time).unwrap());
        let count = poll(&mut fds, timeout.as_ref()).unwrap();
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        let is_readable = !fds[0].revents().is_empty();
        if !fds[1].revents().is_empty() {
            let _ = rustix::io::read(&shared.wake, &mut [0; 8]);
        }
        if let (0, true, Some(at)) = (count, is_hurried, deadline) {
            let missing = at.saturating_duration_since(shared.now());
            *shared.skipped.lock().unwrap() += missing;
        }
        if is_readable || deadline.is_some_and(|at| at <= shared.now()) {
            shared.rounds.fetch_add(1, Ordering::SeqCst);
            responder.ready(shared.now());
        }
    }
}
