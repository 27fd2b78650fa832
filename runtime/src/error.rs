//! The errors of the runtime: what was attempted, on what; the source chain says why.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_sys::pidfd::Exit;

use crate::state::{Status, Verb};

/// Short for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Texts do not repeat their source: print the chain.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are the objects their variant's text names
pub enum Error {
    /// An id that cannot name a container.
    #[error("container id \"{id}\" is not valid: {why}")]
    Id { id: String, why: &'static str },
    /// The id is taken.
    #[error("container with id \"{id}\" exists already")]
    Exists { id: String },
    /// No such container.
    #[error("container \"{id}\" does not exist")]
    NotFound { id: String },
    /// `config.json` (or a process file) does not have the form of the specification.
    #[error("{}: field {field}: {why}", path.display())]
    Config {
        path: PathBuf,
        field: String,
        why: String,
    },
    /// A value that is well-formed and still cannot be honoured as it stands.
    #[error("config.json: field {field}: {why}")]
    Invalid { field: String, why: String },
    /// Something of the specification (or of runc) that berth does not do.
    #[error("not supported: {what}: {why}")]
    Unsupported { what: String, why: String },
    /// The verb does not fit what the container is doing.
    // Engines read these sentences too, so they are runc's.
    #[error("{}", wrong(*verb, id, *status))]
    Wrong { verb: Verb, id: String, status: Status },
    /// A step of the container's own process failed; the text is the child's whole chain.
    #[error("{step}{}{why}", if why.is_empty() { "" } else { ": " })]
    Init { step: String, why: String },
    /// The container's process ended without a word.
    #[error("init ended during setup {how}")]
    InitDied { how: String },
    /// Nothing was heard for as long as the caller would wait.
    #[error(
        "{silent} said nothing for {patience:?} during setup; hint: a process of the container may have stopped it"
    )]
    Silent {
        silent: &'static str,
        patience: Duration,
    },
    /// The kernel killed init for memory.
    #[error("init was killed for lack of memory during setup: memory limit too low{}", limit_text(*limit))]
    InitOom { limit: Option<i64> },
    /// The caller has no right to make what was asked for.
    #[error("not permitted: a container without a user namespace of its own needs root; hint: run as root")]
    NotRoot,
    /// The program this library is part of runs from a file that a process in a container could write.
    #[error(
        "this program's own file could be written from inside the container (CVE-2019-5736); \
         hint: call berth_sys::reexec::seal first thing in main"
    )]
    NotSealed,
    /// A hook failed or took too long.
    #[error("{kind} hook {}: {why}", path.display())]
    Hook {
        kind: &'static str,
        path: PathBuf,
        why: String,
    },
    /// The container's cgroup.
    #[error(transparent)]
    Cgroup(#[from] berth_cgroups::Error),
    /// The container's file system.
    #[error(transparent)]
    Rootfs(#[from] crate::init::rootfs::Error),
    /// The seccomp filter.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::Error),
    /// A system call or file operation.
    #[error("cannot {op} {object}")]
    Io {
        op: &'static str,
        object: String,
        source: io::Error,
    },
    /// The program is missing or cannot be executed; the exit code is the shell's.
    // Engines read these sentences for their exit codes 126 and 127, so they are runc's.
    #[error("exec: \"{program}\": {}", exec_cause(program, cause))]
    Exec { program: String, cause: io::Error },
}

impl Error {
    /// An [`Error::Io`].
    pub fn io(op: &'static str, object: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            op,
            object: object.into(),
            source: source.into(),
        }
    }

    /// An [`Error::Io`] about a path.
    pub fn path(op: &'static str, object: &Path, source: impl Into<io::Error>) -> Self {
        Self::io(op, object.display().to_string(), source)
    }

    /// An [`Error::Invalid`].
    pub fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            why: why.into(),
        }
    }

    /// An [`Error::Unsupported`].
    pub fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported {
            what: what.into(),
            why: why.into(),
        }
    }

    /// The whole chain on one line, outermost first, as the log and the parent of init get it.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(e) = source {
            text.push_str(": ");
            text.push_str(&e.to_string());
            source = e.source();
        }
        text
    }
}

fn wrong(verb: Verb, id: &str, status: Status) -> String {
    use Status::{Paused, Running, Stopped};
    match (verb, status) {
        (Verb::Start, Running) => "cannot start an already running container".into(),
        (Verb::Start, Stopped) => "cannot start a container that has stopped".into(),
        (Verb::Start, _) => format!("cannot start a container in the {status} state"),
        (Verb::Exec, Stopped) => "cannot exec in a stopped container".into(),
        (Verb::Exec, Paused) => "cannot exec in a paused container (use --ignore-paused to override)".into(),
        (Verb::Exec, _) => format!("cannot exec in a container in the {status} state"),
        (Verb::Kill | Verb::Update, Stopped) => "container not running".into(),
        (Verb::Pause, _) => format!("container not running or created: {status}"),
        (Verb::Resume, _) => "container not paused".into(),
        (Verb::Delete | Verb::ForceDelete, _) => {
            format!("cannot delete container {id} that is not stopped: {status}")
        }
        (Verb::Kill | Verb::Update, _) => format!("cannot {} container {id}: it is {status}", verb.name()),
    }
}

/// How a process ended that should not have, for [`Error::InitDied`].
pub(crate) fn ending(exit: io::Result<Exit>) -> String {
    match exit {
        Ok(Exit::Code(code)) => format!("with code {code}"),
        Ok(Exit::Signal(signal)) => format!("by signal {signal}"),
        Err(e) => format!("in a way that cannot be told: {e}"),
    }
}

fn limit_text(limit: Option<i64>) -> String {
    limit.map_or_else(String::new, |bytes| {
        format!(" (linux.resources.memory.limit is {bytes} bytes)")
    })
}

fn exec_cause(program: &str, cause: &io::Error) -> String {
    match cause.raw_os_error() {
        Some(libc::ENOENT) if !program.contains('/') => "executable file not found in $PATH".into(),
        Some(libc::ENOENT) => format!("stat {program}: no such file or directory"),
        Some(libc::EACCES) => "permission denied".into(),
        Some(libc::ENOEXEC) => "exec format error".into(),
        _ => cause.to_string(),
    }
}

/// Lets a step name itself: `call().step("set hostname", name)?`.
pub trait Step<T> {
    /// Turns a failure into [`Error::Io`].
    ///
    /// # Errors
    ///
    /// The failure it was called on.
    fn step(self, op: &'static str, object: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Step<T> for std::result::Result<T, E> {
    fn step(self, op: &'static str, object: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::io(op, object, e))
    }
}
