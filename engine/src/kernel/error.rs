//! Why a kernel cannot be stored, found or booted.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong. Texts do not repeat their source: print the chain.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are the objects their variant's text names
pub enum Error {
    #[error("invalid kernel name {0:?}: want [a-zA-Z0-9][a-zA-Z0-9_.+~-]*, at most 100 characters")]
    Name(String),
    #[error("no such kernel: {0}")]
    Missing(String),
    #[error("kernel name {0} is in use")]
    Taken(String),
    #[error("remove kernel {0}: it is the default")]
    IsDefault(String),
    #[error("remove kernel {0}: a microVM is being started with it")]
    Busy(String),
    /// Nobody chose one, and none was installed.
    #[error("no kernel for microVMs: none is the default, and {} has none with its modules in {}", boot.display(), modules.display())]
    NoDefault { boot: PathBuf, modules: PathBuf },
    #[error("{} is no kernel: {why}", path.display())]
    NotKernel { path: PathBuf, why: &'static str },
    #[error("{} is no modules directory: {why}", path.display())]
    NotModules { path: PathBuf, why: &'static str },
    /// A module the guest cannot do without.
    #[error("{} has no module {name}, and it is not built in", path.display())]
    NoModule { path: PathBuf, name: String },
    /// Modules load into the kernel they were built for and into no other.
    #[error("{} is for kernel {found}, not {expected}", path.display())]
    OtherRelease {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error("{} is no kernel module: {why}", path.display())]
    NotModule { path: PathBuf, why: &'static str },
    /// The program that is to be the guest's `/init`.
    #[error("cannot read the guest program {}", path.display())]
    Guest {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {op} {}", path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Lets a file operation name itself.
pub(super) trait At<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            op,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}
