//! `stop`, `kill`, `restart`, `pause`, `unpause`, `wait`: messages to the shim.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};

use crate::ContainerConfig;
use crate::container::Verb;
use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::flags::Signal;
use crate::id::ContainerId;
use crate::shim::protocol::{self, Failure, PACKET_MAX, PATIENCE, Packet, Reply, Request};
use crate::start::StartOptions;

/// How to stop; none takes the container's own settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopOptions {
    /// Instead of the container's stop signal.
    pub signal: Option<Signal>,
    /// Seconds to wait before SIGKILL; negative waits for ever.
    pub timeout: Option<i64>,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// Not running; at once if it is not.
    #[default]
    NotRunning,
    /// The next end.
    NextExit,
    /// Gone.
    Removed,
}

const STOP_TIMEOUT: i64 = 10;

impl Engine {
    /// Asks it to end, then makes it; returns when it has. A container that does not run is fine.
    ///
    /// # Errors
    ///
    /// [`Error::ShimSilent`] when it should have been made to end for a while and its shim has not said so.
    pub fn stop(&self, id: &ContainerId, options: &StopOptions) -> Result<()> {
        let config = self.config(id)?;
        let signal = options.signal.unwrap_or(config.stop_signal).number();
        let timeout = options.timeout.or(config.stop_timeout).unwrap_or(STOP_TIMEOUT);
        // Negative: the container may take as long as it likes, and nobody can tell it from a shim that is stuck.
        let patience = u64::try_from(timeout)
            .ok()
            .map(|seconds| PATIENCE.saturating_add(Duration::from_secs(seconds)));
        if self.stop_within(id, signal, timeout, patience)? {
            self.event("stop", &config, &[]);
        }
        Ok(())
    }

    /// Says whether there was anything to stop.
    pub(crate) fn stop_within(
        &self,
        id: &ContainerId,
        signal: i32,
        timeout: i64,
        patience: Option<Duration>,
    ) -> Result<bool> {
        let config = self.config(id)?;
        let socket = match self.shim(id, &config, "stop", Verb::Kill) {
            Err(Error::Wrong { .. }) => return Ok(false),
            other => other?,
        };
        match self.ask(&socket, &config, &Request::Stop { signal, timeout }, patience) {
            // It ended of itself while we asked.
            Err(Error::ShimDied(_)) if !self.state(id).is_ok_and(|s| s.status.needs_shim()) => Ok(true),
            other => other.map(|_| true),
        }
    }

    /// Sends a signal to its init.
    pub fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        self.command(
            id,
            "kill",
            Verb::Kill,
            &Request::Kill {
                signal: signal.number(),
            },
        )
    }

    /// Stop, then start. A container that does not run is started.
    pub fn restart(&self, id: &ContainerId, options: &StopOptions) -> Result<()> {
        self.stop(id, options)?;
        let _ = self.start(id, &StartOptions::default())?;
        self.event("restart", &self.config(id)?, &[]);
        Ok(())
    }

    /// Freezes all its processes.
    pub fn pause(&self, id: &ContainerId) -> Result<()> {
        self.command(id, "pause", Verb::Pause, &Request::Pause)
    }

    /// Lets them go on.
    pub fn unpause(&self, id: &ContainerId) -> Result<()> {
        self.command(id, "unpause", Verb::Unpause, &Request::Unpause)
    }

    /// Blocks until the condition holds; its exit code.
    ///
    /// # Errors
    ///
    /// [`Error::Shim`] when too many wait already.
    pub fn wait(&self, id: &ContainerId, condition: WaitCondition) -> Result<i32> {
        let config = self.config(id)?;
        if condition == WaitCondition::Removed {
            return self.wait_removed(id);
        }
        let last = condition != WaitCondition::NextExit;
        match self.shim(id, &config, "wait for", Verb::Kill) {
            Ok(socket) => match self.ask(&socket, &config, &Request::Wait { last }, None) {
                Ok(Some(code)) => Ok(code),
                Err(e @ Error::Shim { .. }) => Err(e),
                // The shim ended between connect and answer: the record is written by then.
                _ => Ok(self.state(id)?.exit_code),
            },
            Err(Error::Wrong { .. }) => Ok(self.state(id)?.exit_code),
            Err(e) => Err(e),
        }
    }

    /// Until its directory is gone; the exit code it had then.
    fn wait_removed(&self, id: &ContainerId) -> Result<i32> {
        use rustix::fs::inotify;
        let dir = self.paths.container(id);
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).at("watch", &dir)?;
        match inotify::add_watch(&watch, &dir, inotify::WatchFlags::DELETE_SELF) {
            Ok(_) => {}
            Err(rustix::io::Errno::NOENT) => return Err(Error::NoSuchContainer(id.to_string())),
            Err(e) => return Err(Error::io("watch", dir, e)),
        }
        // The watch stands: a removal from here on is not missed, not even while we wait for its end.
        let code = match self.wait(id, WaitCondition::NotRunning) {
            Err(Error::NoSuchContainer(_)) => 0,
            other => other?,
        };
        while dir.exists() {
            let mut event = [0u8; 512];
            match rustix::io::read(&watch, &mut event) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("watch", dir, e)),
            }
        }
        Ok(code)
    }

    fn command(&self, id: &ContainerId, verb: &'static str, wanted: Verb, request: &Request) -> Result<()> {
        let config = self.config(id)?;
        let socket = self.shim(id, &config, verb, wanted)?;
        self.ask(&socket, &config, request, Some(PATIENCE)).map(drop)
    }

    /// One request and its answer; the exit code if that is the answer. [`Error::ShimSilent`] after `patience`.
    pub(crate) fn ask(
        &self,
        socket: &OwnedFd,
        config: &ContainerConfig,
        request: &Request,
        patience: Option<Duration>,
    ) -> Result<Option<i32>> {
        let name = || config.name.to_string();
        let gone = |_: std::io::Error| Error::ShimDied(name());
        // A shim at its end answers before it hears the question: its word is there although the way to it is cut.
        let _ = protocol::transmit(socket, &request.encode(), SendFlags::empty());
        if !berth_sys::readiness::readable_within(socket, patience).map_err(gone)? {
            return Err(Error::ShimSilent { name: name() });
        }
        let mut buffer = vec![0; PACKET_MAX];
        match protocol::receive(socket, &mut buffer, RecvFlags::empty()).map_err(|e| gone(e.into()))? {
            Packet::Reply(Reply::Done) => Ok(None),
            Packet::Reply(Reply::Exit { code }) => Ok(Some(code)),
            Packet::Reply(Reply::Failed(Failure::Other { why, .. })) => {
                Err(Error::Shim { name: name(), why })
            }
            _ => Err(Error::ShimDied(name())),
        }
    }
}
