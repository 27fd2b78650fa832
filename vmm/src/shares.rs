//! The threads of shared directories: one each, with an event loop that serves its device and nothing else.
//!
//! ```text
//! start:  a thread a share, each with its filter, before any processor runs
//! pause:  gate closed ─► woken ─► what is being served is finished ─► the thread stands at the gate
//! ```
//!
//! A file of the host can make wait for as long as it likes: on a disk that sleeps, on a server that is gone. Then this share
//! waits, and a pause with it; the machine's processors, its other devices and its API do not.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::EventFd;

use crate::devices::virtio::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::jail;
use crate::processors::Gate;
use crate::seccomp::{Filter, Seccomp};

/// The threads; they end with this, once what they do at that time is done.
pub(crate) struct Shares {
    gate: Arc<Gate>,
    over: Arc<AtomicBool>,
    wakers: Vec<EventFd>,
}

impl Shares {
    /// Starts a thread for each of `endpoints`, confined as `seccomp` says, and `jailed` also to what files need of root.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when there are no more threads or descriptors, or one cannot be confined.
    pub(crate) fn start(endpoints: Vec<Endpoint>, seccomp: Seccomp, jailed: bool) -> Result<Shares> {
        let mut shares = Shares {
            gate: Arc::default(),
            over: Arc::default(),
            wakers: Vec::with_capacity(endpoints.len()),
        };
        for endpoint in endpoints {
            shares.serve(endpoint, seccomp.share(), jailed)?;
        }
        Ok(shares)
    }

    fn serve(&mut self, endpoint: Endpoint, filter: Filter, jailed: bool) -> Result<()> {
        let event =
            || EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).map_err(failed("create an event"));
        let waker = event()?;
        let woken = waker.try_clone().map_err(failed("share an event"))?;
        let mut events = EventManager::<Box<dyn MutEventSubscriber + Send>>::new()
            .map_err(|e| failed("make an event loop")(io::Error::other(e)))?;
        events.add_subscriber(Box::new(endpoint));
        events.add_subscriber(Box::new(Waker(woken)));
        let (gate, over) = (self.gate.clone(), self.over.clone());
        let (ready, confined) = mpsc::channel();
        let thread = move || {
            // Whoever waits for it is there.
            let fewer = if jailed { jail::keep_files_alone() } else { Ok(()) };
            let _ = ready.send(fewer.and_then(|()| filter.install()));
            drop((filter, ready));
            // Fails when it cannot wait for events; then this share is not served any more.
            while !over.load(Ordering::Acquire) && events.run().is_ok() {
                if gate.is_closed() {
                    gate.stand();
                }
            }
            gate.leave();
        };
        std::thread::Builder::new()
            .name("share".into())
            .spawn(thread)
            .map_err(failed("start a share's thread"))?;
        self.wakers.push(waker);
        confined.recv().expect("the thread says how it went")
    }

    /// Waits until none of them does anything: they touch neither the guest's memory nor files.
    pub(crate) fn pause(&self) {
        self.gate.close(self.wakers.len(), || self.wake());
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        self.gate.open();
    }

    fn wake(&self) {
        for waker in &self.wakers {
            // Fails only when it has been woken 2^64 times.
            let _ = waker.write(1);
        }
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.gate.open();
        // Not waited for: the host may keep them.
        self.wake();
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Events { operation, source }
}

/// Makes the loop look at the gate.
struct Waker(EventFd);

impl MutEventSubscriber for Waker {
    fn init(&mut self, ops: &mut EventOps) {
        ops.add(Events::new(&self.0, EventSet::IN | EventSet::EDGE_TRIGGERED))
            .expect("a fresh descriptor can be watched");
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {}
}
