//! The engine's errors: what was attempted, on what; the source chain says why.

use std::io;
use std::path::PathBuf;

use crate::container::Status;

/// Short for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Texts do not repeat their source: print the chain.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are the objects their variant's text names
pub enum Error {
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    #[error("container id {0:?} is ambiguous")]
    Ambiguous(String),
    #[error("container name {name:?} is in use by container {holder}")]
    NameTaken { name: String, holder: String },
    #[error("cannot {verb} container {name}: it is {status}")]
    Wrong {
        verb: &'static str,
        name: String,
        status: Status,
    },
    #[error("container {0} has no command: neither the image nor the command line names one")]
    NoCommand(String),
    /// The program is missing; exit code 127.
    #[error("exec: {program:?}: not found in the container")]
    CommandNotFound { program: String },
    /// The program cannot be executed; exit code 126.
    #[error("exec: {program:?}: cannot be executed: {why}")]
    CommandNotExecutable { program: String, why: String },
    /// A step of the start failed in the shim; its chain in one text, and what can be done about it.
    #[error("cannot start container {name}: {why}")]
    Start {
        name: String,
        why: String,
        hint: Option<String>,
    },
    #[error("the shim of container {0} ended without a word")]
    ShimDied(String),
    #[error("the shim of container {name} says nothing")]
    ShimSilent { name: String },
    #[error("the shim of container {name} refused: {why}")]
    Shim { name: String, why: String },
    #[error("not supported: {what}: {why}")]
    Unsupported { what: String, why: String },
    #[error("invalid {what}: {why}")]
    Invalid { what: String, why: String },
    #[error(transparent)]
    Flag(#[from] crate::flags::InvalidFlag),
    #[error("{} is not berth's: it holds other files", path.display())]
    NotOurs { path: PathBuf },
    #[error("cannot {op} {}", path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("image {name}")]
    Image {
        name: String,
        source: Box<berth_images::Error>,
    },
    #[error("container {id}")]
    Runtime {
        id: String,
        source: Box<berth_runtime::Error>,
    },
    #[error("network of container {id}")]
    Network {
        id: String,
        source: Box<crate::network::Error>,
    },
    /// A microVM did not come up, or does not do as it is told.
    #[error("the microVM failed: {why}")]
    MicroVm { why: String },
    /// Something was not done in a guest; its words.
    #[error("{why}")]
    InGuest { why: String },
    #[error(transparent)]
    Copy(#[from] berth_copy::Error),
    #[error("export the root of container {id}")]
    Export {
        id: String,
        source: Box<berth_images::layer::Error>,
    },
    #[error("tidy up the network")]
    TidyNetwork(#[source] Box<crate::network::Error>),
    #[error("kernel of the microVM")]
    Kernel(#[source] Box<crate::kernel::Error>),
    #[error("volume {name}")]
    Volume {
        name: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<crate::kernel::Error> for Error {
    fn from(e: crate::kernel::Error) -> Error {
        Error::Kernel(Box::new(e))
    }
}

impl Error {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Error::Io {
            op,
            path: path.into(),
            source: source.into(),
        }
    }

    /// The whole chain on one line, outermost first.
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

    /// docker's exit code for a `run`, `start` or `exec` that failed with this: 127 when the program is missing, 126
    /// when it cannot be executed, 125 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::CommandNotFound { .. } => 127,
            Error::CommandNotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

/// Lets a file operation name itself: `fs::read(&p).at("read", &p)?`.
pub(crate) trait At<T> {
    fn at(self, op: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, op: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|e| Error::io(op, path, e))
    }
}
