//! What goes wrong in the guest: operation, object and cause. The host prints it; the guest's console only before there is a
//! host to tell.

use std::io;

use crate::protocol::Failure;

/// Short for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Texts do not repeat their source: print [`Error::chain`].
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are the objects their variant's text names
pub enum Error {
    /// A system call or file operation.
    #[error("cannot {operation} {object}")]
    Step {
        operation: &'static str,
        object: String,
        source: io::Error,
    },
    /// The container's runtime.
    #[error(transparent)]
    Runtime(#[from] berth_runtime::Error),
    /// The container's cgroup.
    #[error(transparent)]
    Cgroup(#[from] berth_cgroups::Error),
    /// The request does not fit what there is.
    #[error("{what}: {why}")]
    Refused { what: String, why: String },
}

impl Error {
    /// An [`Error::Refused`].
    pub fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Refused {
            what: what.into(),
            why: why.into(),
        }
    }

    /// The whole chain on one line, outermost first.
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

    /// As the host gets it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        if let Error::Runtime(berth_runtime::Error::Exec { program, cause }) = self
            && let Some(errno) = cause.raw_os_error()
        {
            return Failure::Exec {
                program: program.clone(),
                errno,
            };
        }
        Failure::Other { why: self.chain() }
    }
}

/// Lets a step name itself: `call().at("mount", path)?`.
pub trait At<T> {
    /// Turns a failure into [`Error::Step`].
    ///
    /// # Errors
    ///
    /// The failure it was called on.
    fn at(self, operation: &'static str, object: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, operation: &'static str, object: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::Step {
            operation,
            object: object.into(),
            source: e.into(),
        })
    }
}
