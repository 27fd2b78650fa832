//! What can go wrong with a filter.

use std::io;

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A step from profile to kernel that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The spec's field is wrong.
    #[error("linux.seccomp.{field}: {reason}")]
    Invalid {
        /// Below `linux.seccomp`.
        field: String,
        /// Why not.
        reason: String,
    },
    /// libseccomp refused a step of compiling.
    #[error("cannot compile the seccomp filter: {step}")]
    Compile {
        /// Which.
        step: String,
        /// Why.
        #[source]
        source: libseccomp::error::SeccompError,
    },
    /// The compiled filter could not be taken out of libseccomp.
    #[error("cannot export the seccomp filter")]
    Export {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the filter.
    #[error("cannot load the seccomp filter")]
    Load {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The listener could not be told.
    #[error("cannot send the seccomp listener its descriptor")]
    Send {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }
}
