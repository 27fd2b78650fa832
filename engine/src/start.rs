//! `start`: spawns the shim and waits for its word.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::attach::{AttachOptions, Session};
use crate::config::ContainerConfig;
use crate::container::{State, Status, Verb};
use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::flags::Isolation;
use crate::id::ContainerId;
use crate::isolation::vm::programs::Programs;
use crate::record::{self, Durability};
use crate::shim::protocol::{self, Failure, PACKET_MAX, Packet, Reply};
use crate::{programs, reconcile, remove};

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Attach before the first byte is written; none detaches.
    pub attach: Option<AttachOptions>,
    /// The container comes from [`Engine::create_to_start`]: its record goes to the disk while its shim starts it, which
    /// takes about as long, and is there when the start returns.
    pub is_new: bool,
}

impl Engine {
    /// Starts a created or exited container and returns once its program runs. With `attach`, the session is connected
    /// from before the start: no output is missed.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] when it runs already; [`Error::CommandNotFound`], [`Error::CommandNotExecutable`] or
    /// [`Error::Start`] as the shim says. A container with `--rm` is gone then. [`Error::Io`] when the record of a new one
    /// does not get to the disk; it is stopped then.
    pub fn start(&self, id: &ContainerId, options: &StartOptions) -> Result<Option<Session>> {
        let lock = record::lock(&self.paths, id)?;
        let state = reconcile::locked(&self.paths, id)?;
        let config = record::config(&self.paths, id)?;
        if !state.status.allows(Verb::Start) {
            return Err(Error::Wrong {
                verb: "start",
                name: config.name.to_string(),
                status: state.status,
            });
        }
        // Before there is a shim: should we be killed from here on, nobody takes the container for one that rests, starts it
        // a second time or removes it under the shim's hands.
        let mut starting = state.clone();
        starting.status = Status::Restarting;
        record::save_state(&self.paths, id, &starting, Durability::Renamed)?;
        // Held until the container runs or does not: its kernel is not removed meanwhile.
        let machine = match config.host.isolation {
            Isolation::Container => Ok(None),
            Isolation::Vm => Programs::find(&self.paths.root).map(Some),
        };
        let machine = match machine {
            Ok(machine) => machine,
            Err(e) => return Err(self.not_started(&config, &state, e)),
        };
        let programs = machine.as_ref().map(|(programs, _kernel)| programs);
        let mut on_disk = Ok(());
        let started = self
            .spawn_shim(&config, options.attach.as_ref(), programs)
            .and_then(|socket| {
                // Not before the shim is on its way: the two go on side by side.
                if options.is_new {
                    on_disk = record::sync_config(&self.paths, &config);
                }
                log::debug!("waiting for berth-shim to start container {id}");
                let outcome = first_word(&socket, &config);
                log::debug!("berth-shim answered for container {id}: {outcome:?}");
                outcome.map(|()| socket)
            });
        let socket = match started {
            Ok(socket) => socket,
            Err(e) => return Err(self.not_started(&config, &state, e)),
        };
        drop(lock);
        if let Err(e) = on_disk {
            // Nobody is told of a container that the next power cut may take away. What failed first is what the user hears.
            let _ = self.end(id);
            return Err(e);
        }
        Ok(options
            .attach
            .as_ref()
            .map(|attach| Session::new(socket, attach.clone(), config.tty)))
    }

    /// After a start that failed: with `--rm` the container goes, otherwise the record is what the shim made of it, or as it
    /// was if no shim came so far. The error is what the user hears, whatever comes of this.
    fn not_started(&self, config: &ContainerConfig, before: &State, e: Error) -> Error {
        let id = &config.id;
        if config.host.auto_remove {
            let _ = reconcile::clear(&self.paths, id, before);
            let _ = remove::erase(&self.paths, id, Some(config), true);
        } else if record::state(&self.paths, id)
            .is_ok_and(|now| now.status == Status::Restarting && now.shim_pid == 0)
        {
            let _ = record::save_state(&self.paths, id, before, Durability::Renamed);
        }
        e
    }
    fn spawn_shim(
        &self,
        config: &ContainerConfig,
        attach: Option<&AttachOptions>,
        programs: Option<&Programs>,
    ) -> Result<OwnedFd> {
        let run = self.paths.run_dir(&config.id);
        match std::fs::DirBuilder::new().mode(0o700).create(&run) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", run, e));
            }
            _ => {}
        }
        // A shim that is done but still has words for a slow client holds the old file, which nobody asks any more.
        let path = run.join("shim.lock");
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", path, e)),
            _ => {}
        }
        let lock = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .at("create", &path)?;
        // Taken here and inherited: from now on there is no instant at which the shim exists without its lock.
        // Waits at most for who looks whether a shim lives, an instant; the file is new and no shim can have it.
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).at("lock", &path)?;
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .at("make a socket for", "berth-shim")?;
        let program = self.shim.clone().map_or_else(shim_program, Ok)?;
        let sealed = berth_sys::reexec::clone_read_only(&program)
            .or_else(|_| berth_sys::reexec::copy_sealed(&program))
            .at("open", &program)?;
        let streams = attach.map_or(0, |a| {
            u8::from(a.stdin) | u8::from(a.stdout) << 1 | u8::from(a.stderr) << 2
        });
        let mut command = Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()));
        command.arg0("berth-shim");
        command
            .env_clear()
            .arg(&self.paths.root)
            .arg(&self.paths.state)
            .arg(config.id.as_str())
            .arg(streams.to_string())
            .current_dir("/")
            // Handed over as standard streams: a descriptor left open over exec by number would also go to whatever another
            // thread starts meanwhile, and a lock in a second process says for ever that the shim lives.
            .stdin(Stdio::from(OwnedFd::from(lock)))
            .stdout(Stdio::from(theirs))
            .stderr(Stdio::null());
        if let Some(programs) = programs {
            programs.hand_over(&mut command);
        }
        command.spawn().at("execute", &program)?;
        Ok(ours)
    }
}

/// `BERTH_SHIM`, or the file `berth-shim` beside the running program.
pub(crate) fn shim_program() -> Result<PathBuf> {
    programs::beside("BERTH_SHIM", "berth-shim").at("read", "/proc/self/exe")
}

fn first_word(socket: &OwnedFd, config: &ContainerConfig) -> Result<()> {
    let mut buffer = vec![0; PACKET_MAX];
    match protocol::receive(socket, &mut buffer, RecvFlags::empty()) {
        Ok(Packet::Reply(Reply::Started)) => Ok(()),
        Ok(Packet::Reply(Reply::Failed(failure))) => Err(failure.into_error(config.name.as_str())),
        Ok(_) => Err(Error::ShimDied(config.name.to_string())),
        Err(e) => Err(Error::io("read from", "berth-shim", e)),
    }
}

impl Failure {
    pub(crate) fn into_error(self, name: &str) -> Error {
        match self {
            Failure::NotFound { program } => Error::CommandNotFound { program },
            Failure::NotExecutable { program, why } => Error::CommandNotExecutable { program, why },
            Failure::Start { why, hint } => Error::Start {
                name: name.to_owned(),
                why,
                hint,
            },
            Failure::Other { why } => Error::Start {
                name: name.to_owned(),
                why,
                hint: None,
            },
        }
    }
}
