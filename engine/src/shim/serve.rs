//! The shim's life: start the container, serve it until its end, start it again if the policy says so.
//!
//! One loop over poll(2): [`poll`] says what there is to do, [`client`] who asks, [`request`] what they may ask,
//! [`streams`] what flows.

mod client;
mod poll;
mod request;
mod streams;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use self::client::{Client, Wait};
use self::poll::timespec;
use super::Errand;
use super::children::Orphans;
use super::health::Monitor;
use super::lifecycle::{self, Running};
use super::log::Log;
use super::protocol::{self, Failure, PACKET_MAX, Reply};
use crate::config::ContainerConfig;
use crate::container::{State, Status};
use crate::error::{At, Error, Result};
use crate::logs::Stream;
use crate::record::{self, Durability};
use crate::{engine, remove};

/// A client that takes nothing for so long after the end is left behind.
const LINGER: Duration = Duration::from_secs(10);

/// docker's back-off: doubling from 100 ms to a minute, begun again after a run of ten seconds.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
const BACKOFF_RESET: Duration = Duration::from_secs(10);

struct Shim {
    errand: Errand,
    config: ContainerConfig,
    state: State,
    log: Log,
    listener: OwnedFd,
    /// No client is taken in before: the kernel had nothing for it, or others have yet to ask.
    deaf_until: Option<Instant>,
    /// The first reason's share of that.
    short_until: Option<Instant>,
    clients: Vec<Client>,
    /// Input a full pipe had no room for; no more is read from clients until it is gone.
    input: Vec<u8>,
    input_ended: bool,
    kill_at: Option<Instant>,
    health: Option<Monitor>,
    orphans: Orphans,
}

/// Starts the container and serves it until its end.
pub(super) fn run(errand: Errand) -> Result<()> {
    let mut starter = Client::new(errand.starter.try_clone().at("prepare", "the starter's socket")?);
    (starter.stdin, starter.stdout, starter.stderr) = (
        errand.streams & 1 != 0,
        errand.streams & 2 != 0,
        errand.streams & 4 != 0,
    );
    if errand.streams != 0 {
        starter.waits = Some(Wait::Next);
    }
    let mut shim = match prepare(errand) {
        Ok(shim) => shim,
        Err(e) => {
            starter.say(&Reply::Failed(failure(&e)).encode());
            return Err(e);
        }
    };
    starter.asked = true;
    shim.clients.push(starter);
    let mut running = match lifecycle::begin(&shim.errand.paths, &shim.config, &mut shim.state) {
        Ok(running) => running,
        Err(e) => {
            shim.clients[0].say(&Reply::Failed(failure(&e)).encode());
            return Ok(());
        }
    };
    // Noted before it is told: what the starter notes next came later.
    shim.note("start", &[]);
    shim.clients[0].say(&Reply::Started.encode());
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let code = shim.serve(&mut running);
        let again =
            shim.config
                .host
                .restart
                .restarts(code, shim.state.restart_count, shim.state.stopped_by_user);
        if running.sandbox.oom_killed() {
            shim.note("oom", &[]);
        }
        shim.note("die", &[("exitCode", code.to_string())]);
        let _released = lifecycle::end(
            &shim.errand.paths,
            &shim.config,
            &mut shim.state,
            running,
            code,
            again,
        )?;
        if !again {
            return shim.finish(code);
        }
        shim.exited(code, Wait::Next);
        backoff = if began.elapsed() >= BACKOFF_RESET {
            BACKOFF_MIN
        } else {
            backoff
        };
        if !shim.pause_between_runs(backoff) {
            // Stopped while waiting.
            shim.state.status = Status::Exited;
            (shim.state.shim_pid, shim.state.shim_start) = (0, 0);
            record::save_state(
                &shim.errand.paths,
                &shim.errand.id,
                &shim.state,
                record::last_words(&shim.config),
            )?;
            return shim.finish(code);
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
        shim.state.restart_count += 1;
        running = match lifecycle::begin(&shim.errand.paths, &shim.config, &mut shim.state) {
            Ok(running) => running,
            Err(e) => return shim.finish(e.exit_code().into()),
        };
        shim.note("start", &[]);
    }
}

fn prepare(errand: Errand) -> Result<Shim> {
    let config = record::config(&errand.paths, &errand.id)?;
    let mut state = record::state(&errand.paths, &errand.id)?;
    state.restart_count = 0;
    state.stopped_by_user = false;
    let path = errand.paths.log(&errand.id);
    let log = Log::open(path.clone(), config.host.log).at("open", path)?;
    let run = errand.paths.run_dir(&errand.id);
    let listener = protocol::listen(&run).at("listen in", run)?;
    Ok(Shim {
        errand,
        config,
        state,
        log,
        listener,
        deaf_until: None,
        short_until: None,
        clients: Vec::new(),
        input: Vec::new(),
        input_ended: false,
        kill_at: None,
        health: None,
        orphans: Orphans::adopt().at("prepare to collect", "children")?,
    })
}

/// What the starter is told; the kind survives the way.
fn failure(e: &Error) -> Failure {
    match e {
        Error::CommandNotFound { program } => Failure::NotFound {
            program: program.clone(),
        },
        Error::CommandNotExecutable { program, why } => Failure::NotExecutable {
            program: program.clone(),
            why: why.clone(),
        },
        other => Failure::Start {
            why: other.chain(),
            hint: crate::hint::hint(other),
        },
    }
}

impl Shim {
    fn note(&self, action: &str, more: &[(&str, String)]) {
        engine::note(&self.errand.paths, action, &self.config, more);
    }

    fn save(&self) {
        // A full disk must not end a container; the next save tells more.
        let _ = record::save_state(
            &self.errand.paths,
            &self.errand.id,
            &self.state,
            Durability::Renamed,
        );
    }

    /// Until init has ended and what it wrote is taken; its exit code.
    fn serve(&mut self, running: &mut Running) -> i32 {
        let mut buffer = vec![0u8; PACKET_MAX];
        self.health = Monitor::new(&self.config, Instant::now());
        loop {
            let ready = self.wait(running);
            let Some(ready) = ready else { continue };
            if ready.out {
                self.relay(running, Stream::Stdout, &mut buffer);
            }
            if ready.err {
                self.relay(running, Stream::Stderr, &mut buffer);
            }
            if ready.input {
                self.feed(running, &[]);
            }
            if ready.dns
                && let Some(responder) = &mut running.responder
            {
                responder.ready(Instant::now());
            }
            if ready.health {
                self.check_health(running);
            }
            if ready.children || self.orphans.unfinished() {
                let probe = self.health.as_ref().and_then(Monitor::pid);
                self.orphans
                    .sweep(&[running.sandbox.process().0, probe.unwrap_or(0)]);
            }
            for i in 0..self.clients.len() {
                if ready.clients.get(i) == Some(&true) {
                    self.clients[i].flush();
                    if self.clients[i].pending.is_empty() {
                        self.hear(i, Some(running), &mut buffer);
                    }
                }
            }
            if ready.listener {
                self.admit();
            }
            self.reap_clients(Some(running));
            if self.kill_at.is_some_and(|at| Instant::now() >= at) {
                self.kill_at = None;
                let _ = running.sandbox.signal(libc::SIGKILL);
                self.thaw(running);
            }
            if ready.init {
                let code = running.sandbox.exit_code();
                self.kill_at = None;
                self.health = None;
                self.drain(running, Stream::Stdout, &mut buffer);
                self.drain(running, Stream::Stderr, &mut buffer);
                let _ = self.log.finish();
                return code;
            }
        }
    }

    /// Moves the health check on and records what it found.
    fn check_health(&mut self, running: &Running) {
        let Some(monitor) = &mut self.health else { return };
        let health = self.state.health.get_or_insert_default();
        let before = health.status.clone();
        let may_start = self.state.status == Status::Running;
        let paths = &self.errand.paths;
        if !monitor.step(&*running.sandbox, paths, &self.config, may_start, health) {
            return;
        }
        let after = health.status.clone();
        self.save();
        if before != after {
            self.note(&format!("health_status: {after}"), &[]);
        }
    }

    /// Waits for the back-off to pass; false when the user stops it meanwhile.
    fn pause_between_runs(&mut self, backoff: Duration) -> bool {
        let until = Instant::now() + backoff;
        let mut buffer = vec![0u8; PACKET_MAX];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return !self.state.stopped_by_user;
            }
            let listening = self.listening();
            let until = self.deaf_until.map_or(until, |at| at.min(until));
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = vec![PollFd::new(&self.listener, listening)];
            fds.extend(self.clients.iter().map(|c| {
                let wanted = if c.pending.is_empty() {
                    PollFlags::IN
                } else {
                    PollFlags::OUT
                };
                PollFd::new(&c.socket, wanted)
            }));
            let _ = rustix::event::poll(&mut fds, Some(&timespec(left)));
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (i, _) in ready[1..].iter().enumerate().filter(|(_, r)| **r) {
                self.clients[i].flush();
                if self.clients[i].pending.is_empty() {
                    self.hear(i, None, &mut buffer);
                }
            }
            if ready[0] {
                self.admit();
            }
            self.reap_clients(None);
            if self.state.stopped_by_user {
                return false;
            }
        }
    }

    /// The last words: with `--rm` everything goes, then who waits is told.
    fn finish(&mut self, code: i32) -> Result<()> {
        if self.config.host.auto_remove {
            let _lock = record::lock(&self.errand.paths, &self.errand.id);
            remove::erase(&self.errand.paths, &self.errand.id, Some(&self.config), true)?;
            self.note("destroy", &[]);
        }
        // Who connected gets the answer, whether accepted or not and whether its question has come yet or not: whatever
        // it asks, this is the answer.
        while self.accept() {}
        let mut buffer = vec![0u8; PACKET_MAX];
        for i in 0..self.clients.len() {
            self.hear(i, None, &mut buffer);
            if !self.clients[i].asked {
                self.clients[i].waits = Some(Wait::Last);
            }
        }
        self.exited(code, Wait::Last);
        let until = Instant::now() + LINGER;
        loop {
            self.clients.retain(|c| !c.gone && !c.pending.is_empty());
            let left = until.saturating_duration_since(Instant::now());
            if self.clients.is_empty() || left.is_zero() {
                return Ok(());
            }
            let mut fds: Vec<_> = self
                .clients
                .iter()
                .map(|c| PollFd::new(&c.socket, PollFlags::OUT))
                .collect();
            let _ = rustix::event::poll(&mut fds, Some(&timespec(left)));
            drop(fds);
            self.clients.iter_mut().for_each(Client::flush);
        }
    }
}
