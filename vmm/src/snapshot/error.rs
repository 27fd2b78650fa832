//! Why a snapshot's file is refused.

use std::io;

use super::state_file::{STATE_MAX, VERSION};

/// Why a file of a snapshot cannot be written, read or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel says no.
    #[error("cannot {operation} it")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("it is no regular file")]
    NoFile,
    /// Larger than any state.
    #[error("it has more than {STATE_MAX} bytes")]
    Large,
    /// Not one of ours.
    #[error("it does not begin as a state file does")]
    Unknown,
    /// One of ours, from another time.
    #[error("its version is {0}, and this monitor reads version {VERSION}")]
    Version(u32),
    /// The end is missing, or there is something behind it.
    #[error("it says that {said} bytes follow its head, and {there} do")]
    Length {
        /// As the head says.
        said: u64,
        /// As there are.
        there: u64,
    },
    /// Not as it was written.
    #[error("its checksum is another than that of what it holds")]
    Checksum,
    /// What it holds is no state.
    #[error("it holds no state")]
    Malformed(#[source] postcard::Error),
    /// The settings in it are none.
    #[error("the settings in it are refused")]
    Settings(#[source] serde_json::Error),
    /// The state cannot be one of a machine with these settings.
    #[error("{part}: {why}")]
    Unfit {
        /// Which part of the state.
        part: String,
        /// Why not.
        why: &'static str,
    },
    /// A memory file that is too short or too long.
    #[error("it has {there} bytes, and the machine's memory {needed}")]
    Memory {
        /// Of the file.
        there: u64,
        /// Of the memory.
        needed: u64,
    },
}

impl Error {
    pub(super) fn io<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Io {
            operation,
            source: source.into(),
        }
    }
}
