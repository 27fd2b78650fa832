//! The one container of a guest, run by the same library as a container on the host.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cgroups::Stats;
use berth_runtime::ps::Observed;
use berth_runtime::{ContainerId, CreateOptions, ExecOptions, StateRoot, Status};
use serde_json::value::RawValue;

use crate::error::{At, Error, Result};
use crate::layout;
use crate::protocol::{Create, Exec, Stream};
use crate::stdio::{self, Ends};

const RUNTIME: &str = "/run/berth/runtime";
/// Compiled filters of the host's, read by the library: this program has no compiler.
const FILTERS: &str = "/run/berth/seccomp";
/// Processes told of at once, and characters of the arguments of each: a frame has room for them, however they are escaped.
const OBSERVED_MAX: usize = 1024;
const ARGUMENTS_MAX: usize = 500;
/// Longest wait for a step of an exec'd process before its program runs; a container can stop it in between.
const EXEC_PATIENCE: Duration = Duration::from_secs(10);

/// A container between Create and Delete.
#[derive(Debug)]
pub struct Container {
    inner: berth_runtime::Container,
    /// The library cannot tell by itself: init waits on a socket only the handle has.
    started: bool,
}

/// A process that was just made: our child, for us to reap.
#[derive(Debug)]
pub struct Made {
    /// As the guest counts.
    pub pid: i32,
    /// Names it, whoever has its number later.
    pub pidfd: OwnedFd,
    /// Our ends of its streams.
    pub streams: Vec<(Stream, OwnedFd)>,
    /// What of its configuration was left out, and why.
    pub warnings: Vec<String>,
}

impl Container {
    /// Writes the bundle and makes the container up to its program. Blocks meanwhile.
    ///
    /// # Errors
    ///
    /// The configuration is refused, or a step failed; then nothing is left of it.
    pub fn create(wanted: &Create) -> Result<(Container, Made)> {
        let id = ContainerId::new(&wanted.id)?;
        let config = Path::new(layout::BUNDLE).join("config.json");
        std::fs::write(&config, wanted.config.get()).at("write", config.display().to_string())?;
        for (name, bytes) in &wanted.filters {
            keep_filter(name, bytes)?;
        }
        let Ends { stdio, console, ours } = Ends::new(wanted.streams)?;
        let options = CreateOptions {
            stdio,
            console,
            seccomp_cache: Some(PathBuf::from(FILTERS)),
            // Nobody else starts it, and the handle lives as long as we do.
            start_at_once: true,
            ..CreateOptions::default()
        };
        let root = StateRoot::new(RUNTIME);
        let created = berth_runtime::Container::create(&root, &id, Path::new(layout::BUNDLE), options)?;
        let made = Made {
            pid: created.container.pid(),
            pidfd: created.init,
            streams: stdio::kept(ours, created.console)?,
            warnings: created.warnings,
        };
        let container = Container {
            inner: created.container,
            started: false,
        };
        Ok((container, made))
    }

    /// Its init.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.inner.pid()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.inner.id().as_str()
    }

    /// What it is doing.
    ///
    /// # Errors
    ///
    /// Reading `/proc` or the freezer failed.
    pub fn status(&self) -> Result<Status> {
        Ok(match self.inner.status()? {
            Status::Running if !self.started => Status::Created,
            other => other,
        })
    }

    /// Lets its program run.
    ///
    /// # Errors
    ///
    /// It cannot be executed, or runs already.
    pub fn start(&mut self) -> Result<()> {
        self.inner.start()?;
        self.started = true;
        Ok(())
    }

    /// Runs one more process. Blocks until its program runs, ten seconds for each step at most.
    ///
    /// # Errors
    ///
    /// The container does not run, the process is refused, or a step failed; then nothing is left of it.
    pub fn exec(&self, wanted: &Exec) -> Result<Made> {
        let process = parse(&wanted.process, "process")?;
        let Ends { stdio, console, ours } = Ends::new(wanted.streams)?;
        let options = ExecOptions {
            stdio,
            console,
            seccomp_cache: Some(PathBuf::from(FILTERS)),
            patience: Some(EXEC_PATIENCE),
            ..ExecOptions::default()
        };
        let started = self.inner.exec(&process, options)?;
        Ok(Made {
            pid: started.pid,
            pidfd: started.pidfd,
            streams: stdio::kept(ours, started.console)?,
            warnings: started.warnings,
        })
    }

    /// Signals every process of it; SIGKILL by `cgroup.kill`, which needs no fork and misses none.
    ///
    /// # Errors
    ///
    /// The errno of the cgroup's files.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        Ok(self.inner.kill(signal, true)?)
    }

    /// Freezes it.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        Ok(self.inner.pause()?)
    }

    /// Thaws it.
    ///
    /// # Errors
    ///
    /// It is not paused.
    pub fn resume(&self) -> Result<()> {
        Ok(self.inner.resume()?)
    }

    /// Changes its limits.
    ///
    /// # Errors
    ///
    /// A value the kernel refuses, naming the file.
    pub fn update(&mut self, resources: &RawValue) -> Result<()> {
        Ok(self.inner.update(&parse(resources, "resources")?)?)
    }

    /// What it has used so far.
    ///
    /// # Errors
    ///
    /// Its cgroup is gone or cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        match self.inner.cgroup()? {
            Some(cgroup) => Ok(cgroup.stats()?),
            None => Err(Error::refused("stats", "the container's cgroup is gone")),
        }
    }

    /// What its processes are doing.
    ///
    /// # Errors
    ///
    /// Its cgroup cannot be read, or there are more than one answer has room for.
    pub fn processes(&self) -> Result<Observed> {
        let pids = self.inner.processes()?;
        if pids.len() > OBSERVED_MAX {
            let why = format!(
                "there are {}, and one answer has room for {OBSERVED_MAX}",
                pids.len()
            );
            return Err(Error::refused("processes", why));
        }
        Ok(Observed::of(&pids, ARGUMENTS_MAX))
    }

    /// Whether it has lost a process for lack of memory.
    #[must_use]
    pub fn lost_to_oom(&self) -> bool {
        let cgroup = self.inner.cgroup().ok().flatten();
        cgroup
            .and_then(|c| c.oom_kills().ok())
            .is_some_and(|kills| kills > 0)
    }

    /// Removes its cgroup and state.
    ///
    /// # Errors
    ///
    /// It has not ended, or a process of it hangs in the kernel; what is left of it can be [loaded](Container::load).
    pub fn delete(self) -> Result<()> {
        self.inner.delete(false)?;
        Ok(())
    }

    /// A container this program made and started before.
    ///
    /// # Errors
    ///
    /// There is none of this id.
    pub fn load(id: &str) -> Result<Container> {
        let inner = berth_runtime::Container::load(&StateRoot::new(RUNTIME), &ContainerId::new(id)?)?;
        Ok(Container { inner, started: true })
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &RawValue, what: &str) -> Result<T> {
    Ok(berth_runtime::bundle::parse(
        text.get().as_bytes(),
        Path::new(what),
    )?)
}

/// The library believes files that are its user's own and nobody else's.
fn keep_filter(name: &str, bytes: &[u8]) -> Result<()> {
    crate::setup::one_component("filter", name)?;
    match std::fs::DirBuilder::new().mode(0o700).create(FILTERS) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e).at("create", FILTERS),
        _ => {}
    }
    let path = Path::new(FILTERS).join(name);
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .at("create", path.display().to_string())?;
    std::io::Write::write_all(&mut file, bytes).at("write", path.display().to_string())
}
