//! What a host may ask, and what is done about it.

use std::time::Duration;

use berth_runtime::Status;

use super::flow::Flow;
use super::{Server, SetupState};
use crate::container::{Container, Made};
use crate::copy;
use crate::error::{At, Error, Result};
use crate::protocol::{ContainerState, Copy, Create, Exec, ProcessId, Reply, Request, Setup, State, Stream};
use crate::{restored, setup};

impl Server {
    /// Reads and obeys what one conversation has to say. It may leave the list, and the last then takes its place.
    pub(super) fn hear(&mut self, i: usize) {
        let Some(request) = self.conversations[i].next() else {
            return;
        };
        let reply = match request {
            Request::Attach { process, stream } => return self.attach(i, process, stream),
            Request::Wait { process } => match self.processes.end_of(process) {
                Ok(None) => return self.conversations[i].wait_for(process),
                Ok(Some(ended)) => {
                    self.told(process);
                    Ok(Reply::Ended(ended))
                }
                Err(e) => Err(e),
            },
            Request::Shutdown => {
                // Answered when it is done, as the last thing before the power goes.
                self.ending = true;
                return self.conversations[i].say(&Reply::Done);
            }
            other => self.obey(other),
        };
        let conversation = &mut self.conversations[i];
        conversation.say(&reply.unwrap_or_else(|e| Reply::Failed(e.failure())));
        conversation.flush();
    }

    fn obey(&mut self, request: Request) -> Result<Reply> {
        match request {
            Request::Setup(wanted) => self.set_up(&wanted),
            Request::Create(wanted) => self.create(&wanted),
            Request::Start => self.container_mut()?.start().map(done),
            Request::Exec(wanted) => self.exec(&wanted),
            Request::Copy(wanted) => self.copy(&wanted),
            Request::Look { path } => copy::look(self.container()?, &path).map(Reply::Found),
            Request::Resize {
                process,
                rows,
                columns,
            } => self.resize(process, rows, columns).map(done),
            Request::Kill { process, signal } => self.processes.kill(process, signal).map(done),
            Request::KillAll { signal } => self.container()?.kill_all(signal).map(done),
            Request::Pause => self.container()?.pause().map(done),
            Request::Resume => self.container()?.resume().map(done),
            Request::Update { resources } => self.container_mut()?.update(&resources).map(done),
            Request::State => self.state().map(Reply::State),
            Request::Stats => Ok(Reply::Stats(Box::new(self.container()?.stats()?))),
            Request::Processes => Ok(Reply::Processes(self.container()?.processes()?)),
            Request::Delete => self.delete().map(done),
            Request::SyncClock { realtime_ns } => restored::set(Duration::from_nanos(realtime_ns)).map(done),
            Request::Reseed { seed } => berth_sys::random::reseed(&seed)
                .at("seed", "the kernel's random numbers")
                .map(done),
            Request::Attach { .. } | Request::Wait { .. } | Request::Shutdown => {
                Err(Error::refused("request", "it has no answer of its own"))
            }
        }
    }

    fn set_up(&mut self, wanted: &Setup) -> Result<Reply> {
        match self.setup {
            SetupState::Awaited => {}
            SetupState::Failed => {
                return Err(Error::refused("setup", "it has failed before and is not undone"));
            }
            SetupState::Done => return Err(Error::refused("setup", "it has been done")),
        }
        let outcome = setup::run(wanted);
        self.setup = if outcome.is_ok() {
            SetupState::Done
        } else {
            SetupState::Failed
        };
        outcome.map(done)
    }

    fn create(&mut self, wanted: &Create) -> Result<Reply> {
        if self.setup != SetupState::Done {
            return Err(Error::refused("create", "setup comes first"));
        }
        if let Some(container) = &self.container {
            let why = format!("container {} is there; delete comes first", container.id());
            return Err(Error::refused("create", why));
        }
        let (container, made) = Container::create(wanted)?;
        self.container = Some(container);
        self.processes.add_init(made.pid, made.pidfd);
        self.keep(ProcessId::INIT, made.streams);
        Ok(Reply::Created {
            warnings: made.warnings,
        })
    }

    fn exec(&mut self, wanted: &Exec) -> Result<Reply> {
        self.container()?;
        self.processes.make_room()?;
        let Made {
            pid,
            pidfd,
            streams,
            warnings,
        } = self.container()?.exec(wanted)?;
        let process = self.processes.add_exec(pid, pidfd);
        self.keep(process, streams);
        Ok(Reply::Execed { process, warnings })
    }

    /// Who asked and goes away takes the process along: nobody else reads its archive, or ends it.
    fn copy(&mut self, wanted: &Copy) -> Result<Reply> {
        self.processes.make_room()?;
        let Made {
            pid,
            pidfd,
            streams,
            warnings,
        } = copy::start(self.container()?, wanted)?;
        let process = self.processes.add_exec(pid, pidfd);
        let flows = streams
            .into_iter()
            .map(|(stream, end)| Flow::of_one_connection(process, stream, end));
        self.flows.extend(flows);
        Ok(Reply::Execed { process, warnings })
    }

    fn keep(&mut self, process: ProcessId, streams: Vec<(Stream, std::os::fd::OwnedFd)>) {
        let flows = streams
            .into_iter()
            .map(|(stream, end)| Flow::new(process, stream, end));
        self.flows.extend(flows);
    }

    /// The conversation becomes the stream's connection.
    fn attach(&mut self, i: usize, process: ProcessId, stream: Stream) {
        let Some(flow) = self.flows.iter_mut().find(|flow| flow.is(process, stream)) else {
            let why = "the process has no such stream, or it has ended";
            let e = Error::refused(format!("{stream:?} of process {}", process.0), why);
            self.conversations[i].say(&Reply::Failed(e.failure()));
            return self.conversations[i].flush();
        };
        if let Some(socket) = self.conversations.swap_remove(i).into_stream(&Reply::Done) {
            flow.attach(socket);
        }
    }

    /// Answers who waited for this end.
    pub(super) fn tell_end(&mut self, process: ProcessId) {
        let Ok(Some(ended)) = self.processes.end_of(process) else {
            return;
        };
        let mut told = false;
        for conversation in &mut self.conversations {
            if conversation.waits_for() == Some(process) {
                conversation.say(&Reply::Ended(ended));
                conversation.flush();
                told = true;
            }
        }
        if told {
            self.told(process);
        }
    }

    /// The container's own end is kept until Delete: its restart policy may want to look again.
    fn told(&mut self, process: ProcessId) {
        if process != ProcessId::INIT {
            self.processes.forget(process);
        }
    }

    fn resize(&self, process: ProcessId, rows: u16, columns: u16) -> Result<()> {
        let terminal = self.flows.iter().find(|flow| flow.is(process, Stream::Terminal));
        let what = || format!("terminal of process {}", process.0);
        let terminal = terminal.ok_or_else(|| Error::refused(what(), "it has none"))?;
        berth_sys::pty::set_size(terminal.end(), rows, columns).at("resize", what())
    }

    fn state(&self) -> Result<State> {
        let container = match &self.container {
            Some(container) => Some(ContainerState {
                id: container.id().to_owned(),
                status: container.status()?.to_string(),
            }),
            None => None,
        };
        Ok(State {
            set_up: self.setup == SetupState::Done,
            container,
            processes: self.processes.ids(),
        })
    }

    fn delete(&mut self) -> Result<()> {
        let container = self.container()?;
        let id = container.id().to_owned();
        if container.status()? != Status::Stopped {
            return Err(Error::refused(format!("container {id}"), "it has not ended"));
        }
        if let Some(container) = self.container.take()
            && let Err(e) = container.delete()
        {
            self.container = Container::load(&id).ok();
            return Err(e);
        }
        self.processes.forget(ProcessId::INIT);
        Ok(())
    }

    fn container(&self) -> Result<&Container> {
        self.container.as_ref().ok_or_else(no_container)
    }

    fn container_mut(&mut self) -> Result<&mut Container> {
        self.container.as_mut().ok_or_else(no_container)
    }
}

fn no_container() -> Error {
    Error::refused("container", "there is none; create comes first")
}

fn done((): ()) -> Reply {
    Reply::Done
}
