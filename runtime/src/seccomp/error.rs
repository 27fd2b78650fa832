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
    #[cfg(feature = "seccomp-compiler")]
    #[error("cannot compile the seccomp filter: {step}")]
    Compile {
        /// Which.
        step: String,
        /// Why.
        #[source]
        source: libseccomp::error::SeccompError,
    },
    /// The compiled filter could not be taken out of libseccomp.
    #[cfg(feature = "seccomp-compiler")]
    #[error("cannot export the seccomp filter")]
    Export {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This program reads compiled filters only, and was given none for this profile.
    #[cfg(not(feature = "seccomp-compiler"))]
    #[error("no compiled seccomp filter for profile {key}: this program has no compiler of its own")]
    NoCompiler {
        /// The profile's hash.
        key: String,
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
