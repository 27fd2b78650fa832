//! The shim's loop: one poll(2) over init, its streams, clients and the name server.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_sys::pidfd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};

use super::Errand;
use super::health::Monitor;
use super::lifecycle::{self, Running};
use super::log::Log;
use super::protocol::{self, Failure, PACKET_MAX, Packet, Reply, Request, STDERR, STDOUT};
use crate::config::ContainerConfig;
use crate::container::{State, Status};
use crate::error::{At, Error, Result};
use crate::flags::Signal;
use crate::logs::Stream;
use crate::network::dns::Responder;
use crate::record::{self, Durability};
use crate::{engine, remove};

/// Clients served at once; more wait in the listen queue.
const CLIENTS_MAX: usize = 64;

/// A client that takes nothing for so long after the end is left behind.
const LINGER: Duration = Duration::from_secs(10);

/// docker's back-off: doubling from 100 ms to a minute, begun again after a run of ten seconds.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
const BACKOFF_RESET: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    /// Wants Exit: at the next end, or at the last only.
    waits: Option<Wait>,
    /// It has said what it wants.
    asked: bool,
    /// Packets its socket had no room for.
    pending: VecDeque<Vec<u8>>,
    gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Next,
    Last,
}

impl Client {
    fn new(socket: OwnedFd) -> Client {
        let pending = VecDeque::new();
        Client {
            socket,
            stdin: false,
            stdout: false,
            stderr: false,
            waits: None,
            asked: false,
            pending,
            gone: false,
        }
    }

    fn say(&mut self, packet: &[u8]) {
        if self.gone {
            return;
        }
        if self.pending.is_empty() {
            match protocol::transmit(&self.socket, packet, SendFlags::DONTWAIT) {
                Ok(()) => return,
                Err(rustix::io::Errno::AGAIN) => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        self.pending.push_back(packet.to_vec());
    }

    fn flush(&mut self) {
        while let Some(packet) = self.pending.front() {
            match protocol::transmit(&self.socket, packet, SendFlags::DONTWAIT) {
                Ok(()) => drop(self.pending.pop_front()),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.gone = true;
                    self.pending.clear();
                }
            }
        }
    }
}

struct Shim {
    errand: Errand,
    config: ContainerConfig,
    state: State,
    log: Log,
    listener: OwnedFd,
    clients: Vec<Client>,
    /// Input a full pipe had no room for; no more is read from clients until it is gone.
    input: Vec<u8>,
    input_ended: bool,
    kill_at: Option<Instant>,
    health: Option<Monitor>,
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
    shim.clients[0].say(&Reply::Started.encode());
    shim.note("start", &[]);
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let code = shim.serve(&mut running);
        let again =
            shim.config
                .host
                .restart
                .restarts(code, shim.state.restart_count, shim.state.stopped_by_user);
        shim.note("die", &[("exitCode", code.to_string())]);
        lifecycle::end(
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
            shim.state.shim_pid = 0;
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
        clients: Vec::new(),
        input: Vec::new(),
        input_ended: false,
        kill_at: None,
        health: None,
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
        other => Failure::Other { why: other.chain() },
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
            for i in 0..self.clients.len() {
                if ready.clients.get(i) == Some(&true) {
                    self.clients[i].flush();
                    self.hear(i, Some(running), &mut buffer);
                }
            }
            if ready.listener {
                self.accept();
            }
            self.reap_clients(Some(running));
            if self.kill_at.is_some_and(|at| Instant::now() >= at) {
                self.kill_at = None;
                let _ = pidfd::send_signal(&running.init, libc::SIGKILL);
            }
            if ready.init {
                let code =
                    pidfd::wait(&running.init).map_or(crate::reconcile::UNKNOWN_EXIT, pidfd::Exit::code);
                self.kill_at = None;
                // Whatever is in the pipes now was written by it; others may hold them open for ever.
                while self.relay(running, Stream::Stdout, &mut buffer) {}
                while self.relay(running, Stream::Stderr, &mut buffer) {}
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
        if !monitor.step(&running.container, paths, &self.config, may_start, health) {
            return;
        }
        let after = health.status.clone();
        self.save();
        if before != after {
            self.note(&format!("health_status: {after}"), &[]);
        }
    }

    fn wait(&mut self, running: &Running) -> Option<Ready> {
        // A client that lags holds the streams back, as a terminal would; the log and memory stay whole and bounded.
        let flowing = self.clients.iter().all(|c| c.pending.is_empty());
        let input = !self.input.is_empty();
        let mut fds = vec![
            PollFd::new(&running.init, PollFlags::IN),
            PollFd::new(
                &self.listener,
                if self.clients.len() < CLIENTS_MAX {
                    PollFlags::IN
                } else {
                    PollFlags::empty()
                },
            ),
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
            let read = if input { none } else { PollFlags::IN };
            let write = if client.pending.is_empty() {
                none
            } else {
                PollFlags::OUT
            };
            fds.push(PollFd::new(&client.socket, read | write));
        }
        let deadline = [
            self.kill_at,
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

    /// Takes what a stream has, once; whether there may be more.
    fn relay(&mut self, running: &mut Running, stream: Stream, buffer: &mut [u8]) -> bool {
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
    fn feed(&mut self, running: &mut Running, bytes: &[u8]) {
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

    /// Takes one client in; false when none waits.
    fn accept(&mut self) -> bool {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => self.clients.push(Client::new(socket)),
            Err(_) => return false,
        }
        true
    }

    fn hear(&mut self, i: usize, running: Option<&mut Running>, buffer: &mut [u8]) {
        let packet = match protocol::receive(&self.clients[i].socket, buffer, RecvFlags::DONTWAIT) {
            Ok(packet) => packet,
            Err(rustix::io::Errno::AGAIN) => return,
            Err(_) => Packet::Gone,
        };
        match (packet, running) {
            (Packet::Stdin(bytes), Some(running)) if self.clients[i].stdin => {
                let bytes = bytes.to_vec();
                self.feed(running, &bytes);
            }
            (Packet::Stdin(_), _) => {}
            (Packet::Request(request), running) => {
                self.clients[i].asked = true;
                let answer = self.obey(i, &request, running);
                if let Some(reply) = answer {
                    self.clients[i].say(&reply.encode());
                }
            }
            _ => self.clients[i].gone = true,
        }
    }

    fn obey(&mut self, i: usize, request: &Request, running: Option<&mut Running>) -> Option<Reply> {
        let outcome = match (request, running) {
            (
                Request::Attach {
                    stdin,
                    stdout,
                    stderr,
                },
                _,
            ) => {
                let client = &mut self.clients[i];
                (client.stdin, client.stdout, client.stderr) = (*stdin, *stdout, *stderr);
                client.waits = Some(Wait::Next);
                Ok(())
            }
            (Request::Wait { last }, _) => {
                self.clients[i].waits = Some(if *last { Wait::Last } else { Wait::Next });
                return None;
            }
            (Request::Resize { rows, columns }, Some(running)) => {
                if let (true, Some(master)) = (self.config.tty, &running.stdout) {
                    let _ = berth_sys::pty::set_size(master, *rows, *columns);
                }
                return None;
            }
            (Request::StdinEof, Some(running)) => {
                if self.clients[i].stdin && !self.config.tty {
                    self.input_ended = true;
                    self.feed(running, &[]);
                }
                return None;
            }
            (Request::Kill { signal }, Some(running)) => {
                if *signal == libc::SIGKILL || *signal == self.config.stop_signal.number() {
                    self.state.stopped_by_user = true;
                    self.save();
                }
                self.signal(running, *signal)
            }
            (Request::Stop { signal, timeout }, running) => {
                self.state.stopped_by_user = true;
                self.save();
                self.clients[i].waits = Some(Wait::Last);
                let running = running?;
                if let Ok(seconds) = u64::try_from(*timeout) {
                    self.kill_at = Instant::now().checked_add(Duration::from_secs(seconds));
                }
                let sent = self.signal(running, *signal);
                if sent.is_ok() && self.state.status == Status::Paused {
                    // A frozen process dies of nothing.
                    let _ = running.container.resume();
                    self.state.status = Status::Running;
                }
                if sent.is_ok() {
                    return None;
                }
                sent
            }
            (Request::Pause, Some(running)) if self.state.status == Status::Running => running
                .container
                .pause()
                .map(|()| self.state.status = Status::Paused)
                .map_err(|e| e.chain()),
            (Request::Unpause, Some(running)) if self.state.status == Status::Paused => running
                .container
                .resume()
                .map(|()| self.state.status = Status::Running)
                .map_err(|e| e.chain()),
            (Request::Reload { limits }, running) => self.reload(*limits, running),
            _ => Err(format!("it is {}", self.state.status)),
        };
        if matches!(request, Request::Pause | Request::Unpause) && outcome.is_ok() {
            self.save();
            self.note(
                if *request == Request::Pause {
                    "pause"
                } else {
                    "unpause"
                },
                &[],
            );
        }
        Some(match outcome {
            Ok(()) => Reply::Done,
            Err(why) => Reply::Failed(Failure::Other { why }),
        })
    }

    fn signal(&self, running: &Running, signal: i32) -> std::result::Result<(), String> {
        let signal = Signal::from_number(signal).ok_or("no such signal")?;
        pidfd::send_signal(&running.init, signal.number()).map_err(|e| e.to_string())?;
        self.note("kill", &[("signal", signal.number().to_string())]);
        Ok(())
    }

    fn reload(&mut self, limits: bool, running: Option<&mut Running>) -> std::result::Result<(), String> {
        let config = record::config(&self.errand.paths, &self.errand.id).map_err(|e| e.chain())?;
        if limits && let Some(running) = running {
            let value = crate::spec::resources::limits(&config.host.resources).map_err(|e| e.chain())?;
            let resources = serde_json::from_value(value).map_err(|e| e.to_string())?;
            running.container.update(&resources).map_err(|e| e.chain())?;
        }
        self.config = config;
        Ok(())
    }

    fn reap_clients(&mut self, running: Option<&mut Running>) {
        let held_stdin = self.clients.iter().any(|c| c.gone && c.stdin);
        self.clients.retain(|c| !c.gone);
        if held_stdin
            && self.config.stdin_once
            && !self.config.tty
            && let Some(running) = running
        {
            self.input_ended = true;
            self.feed(running, &[]);
        }
    }

    /// Tells who waits for this end.
    fn exited(&mut self, code: i32, kind: Wait) {
        let packet = Reply::Exit { code }.encode();
        for client in &mut self.clients {
            if client
                .waits
                .is_some_and(|w| w == Wait::Next || kind == Wait::Last)
            {
                client.say(&packet);
                client.waits = None;
            }
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
            let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
            fds.extend(self.clients.iter().map(|c| PollFd::new(&c.socket, PollFlags::IN)));
            let _ = poll(&mut fds, Some(&timespec(left)));
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (i, _) in ready[1..].iter().enumerate().filter(|(_, r)| **r) {
                self.clients[i].flush();
                self.hear(i, None, &mut buffer);
            }
            if ready[0] {
                self.accept();
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
            let _ = poll(&mut fds, Some(&timespec(left)));
            drop(fds);
            self.clients.iter_mut().for_each(Client::flush);
        }
    }
}

struct Ready {
    init: bool,
    listener: bool,
    out: bool,
    err: bool,
    input: bool,
    dns: bool,
    health: bool,
    clients: Vec<bool>,
}

#[allow(unsafe_code)] // the responder gives its descriptor by number
fn borrow(responder: &Responder) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open and stays the same for the responder's life (its documentation), which the returned
    // borrow does not outlive.
    unsafe { BorrowedFd::borrow_raw(responder.descriptor()) }
}

fn timespec(d: Duration) -> Timespec {
    // A fraction of a nanosecond early would spin; poll(2) rounds up to its own grain.
    Timespec {
        tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: d.subsec_nanos().into(),
    }
}
