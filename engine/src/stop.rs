//! `stop`, `kill`, `restart`, `pause`, `unpause`, `wait`: messages to the shim.

use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags};

use crate::ContainerConfig;
use crate::container::Verb;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::flags::Signal;
use crate::id::ContainerId;
use crate::shim::protocol::{self, Failure, PACKET_MAX, Packet, Reply, Request};
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
    pub fn stop(&self, id: &ContainerId, options: &StopOptions) -> Result<()> {
        let config = self.config(id)?;
        let signal = options.signal.unwrap_or(config.stop_signal).number();
        let timeout = options.timeout.or(config.stop_timeout).unwrap_or(STOP_TIMEOUT);
        let socket = match self.shim(id, &config, "stop", Verb::Kill) {
            Err(Error::Wrong { .. }) => return Ok(()),
            other => other?,
        };
        self.ask(&socket, &config, &Request::Stop { signal, timeout })
            .map(drop)
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
        self.start(id, &StartOptions::default()).map(drop)
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
    pub fn wait(&self, id: &ContainerId, condition: WaitCondition) -> Result<i32> {
        let config = self.config(id)?;
        let last = condition != WaitCondition::NextExit;
        match self.shim(id, &config, "wait for", Verb::Kill) {
            Ok(socket) => match self.ask(&socket, &config, &Request::Wait { last }) {
                Ok(Some(code)) => Ok(code),
                // The shim ended between connect and answer: the record is written by then.
                _ => Ok(self.state(id)?.exit_code),
            },
            Err(Error::Wrong { .. }) => Ok(self.state(id)?.exit_code),
            Err(e) => Err(e),
        }
    }

    fn command(&self, id: &ContainerId, verb: &'static str, wanted: Verb, request: &Request) -> Result<()> {
        let config = self.config(id)?;
        let socket = self.shim(id, &config, verb, wanted)?;
        self.ask(&socket, &config, request).map(drop)
    }

    /// One request and its answer; the exit code if that is the answer.
    pub(crate) fn ask(
        &self,
        socket: &OwnedFd,
        config: &ContainerConfig,
        request: &Request,
    ) -> Result<Option<i32>> {
        let name = || config.name.to_string();
        let gone = |_| Error::ShimDied(name());
        protocol::transmit(socket, &request.encode(), SendFlags::empty()).map_err(gone)?;
        let mut buffer = vec![0; PACKET_MAX];
        match protocol::receive(socket, &mut buffer, RecvFlags::empty()).map_err(gone)? {
            Packet::Reply(Reply::Done) => Ok(None),
            Packet::Reply(Reply::Exit { code }) => Ok(Some(code)),
            Packet::Reply(Reply::Failed(Failure::Other { why })) => Err(Error::Shim { name: name(), why }),
            _ => Err(Error::ShimDied(name())),
        }
    }
}
