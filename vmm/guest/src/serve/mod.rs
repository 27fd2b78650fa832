//! PID 1's life once it listens: one thread, one loop over poll(2).
//!
//! [`poll`] says what there is to do, [`conversation`] who asks, [`request`] what they may ask, [`flow`] what streams carry,
//! [`process`] who lives and who has ended.

mod conversation;
mod flow;
mod poll;
mod process;
mod request;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use berth_sys::signals::{self, Held};

use self::conversation::Conversation;
use self::flow::Flow;
use self::process::Processes;
use crate::container::Container;
use crate::error::{At, Result};
use crate::listen::Listener;
use crate::restored::Watch;
use crate::{power, setup};

/// Conversations at once; who comes then waits in the kernel's queue. A host needs one a waiter and one for the rest.
const CONVERSATIONS_MAX: usize = 128;

/// How long no connection is taken after one could not be: asked at once again, the kernel would say the same.
const PAUSE: Duration = Duration::from_secs(1);

const SIGINT: i32 = 2;
const SIGCHLD: i32 = 17;

struct Server {
    listener: Listener,
    /// Reads SIGCHLD, and SIGINT for Ctrl-Alt-Del.
    signals: Held,
    conversations: Vec<Conversation>,
    flows: Vec<Flow>,
    processes: Processes,
    container: Option<Container>,
    setup: SetupState,
    /// None where nobody says that a guest was restored.
    restored: Option<Watch>,
    /// No connection is taken before; the kernel had no descriptor or memory for the last.
    deaf_until: Option<Instant>,
    /// Somebody has asked for the end.
    ending: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetupState {
    Awaited,
    Failed,
    Done,
}

/// Serves until the power goes off.
///
/// # Errors
///
/// The loop cannot go on, or the power cannot be switched off.
pub fn run(listener: Listener) -> Result<Infallible> {
    // A socket of a machine's is for tests on that machine, whose memory is not ours.
    let restored = match &listener {
        Listener::Vsock(_) => Watch::begin(),
        Listener::Unix(_) => None,
    };
    let mut server = Server {
        listener,
        signals: signals::hold(&[SIGCHLD, SIGINT]).at("hold", "signals")?,
        conversations: Vec::new(),
        flows: Vec::new(),
        processes: Processes::default(),
        container: None,
        setup: SetupState::Awaited,
        restored,
        deaf_until: None,
        ending: false,
    };
    server.listener.announce();
    while !server.ending {
        server.turn()?;
    }
    server.end()
}

impl Server {
    /// Waits for something to do and does it.
    fn turn(&mut self) -> Result<()> {
        let ready = self.wait()?;
        // Before anybody new is heard: the host's connections of before are gone.
        if let Some(restored) = &mut self.restored
            && (ready.listener || restored.is_due())
        {
            restored.look();
        }
        if ready.signals {
            self.take_signals();
        }
        // From the end: who leaves the list is replaced by one that was heard already.
        for (i, _) in ready
            .conversations
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, ready)| **ready)
        {
            self.hear(i);
        }
        for (flow, _) in self
            .flows
            .iter_mut()
            .zip(&ready.flows)
            .filter(|(_, ready)| **ready)
        {
            flow.pump();
        }
        self.flows.retain(|flow| !flow.is_over(&self.processes));
        self.conversations.retain(|one| !one.is_over());
        if ready.listener {
            self.admit();
        }
        Ok(())
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = signals::next(&self.signals) {
            if signal == SIGINT {
                self.ending = true;
            }
        }
        let container = self.container.as_ref();
        let ended = self
            .processes
            .reap(|| container.is_some_and(Container::lost_to_oom));
        for process in ended {
            for flow in self.flows.iter_mut().filter(|flow| flow.process() == process) {
                flow.process_ended();
            }
            self.tell_end(process);
        }
    }

    fn admit(&mut self) {
        match self.listener.accept() {
            Ok(Some(socket)) => self.conversations.push(Conversation::new(socket)),
            Ok(None) => {}
            Err(e) => {
                eprintln!("berth-guest: cannot take a connection: {e}");
                self.deaf_until = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn end(&mut self) -> Result<Infallible> {
        if let Some(container) = &self.container {
            // A frozen process dies of nothing but this; the rest is done below in any case.
            let _ = container.kill_all(9);
        }
        power::kill_everything();
        setup::take_down();
        for conversation in &mut self.conversations {
            conversation.flush();
        }
        power::off()
    }
}
