//! What can go wrong between a spec's mounts and the container's `/`.

use std::io;
use std::path::PathBuf;

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A step that failed, and on what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The spec asks for something that is wrong whatever the host; found before anything was touched.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field of config.json, as `mounts[3].options`.
        field: String,
        /// Why not.
        reason: String,
    },
    /// The container's root cannot be opened.
    #[error("cannot open rootfs {}", path.display())]
    OpenRoot {
        /// root.path, absolute.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// As [`Error::OpenRoot`], where it was looked for in somebody else's mount namespace.
    #[error("cannot find rootfs {} in the joined mount namespace", path.display())]
    FindRoot {
        /// root.path, absolute.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A mount's source cannot be opened.
    #[error("cannot open {} to mount it at {}", source_path.display(), destination.display())]
    OpenSource {
        /// On the host.
        source_path: PathBuf,
        /// In the container.
        destination: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A place in the container cannot be opened or created.
    #[error("cannot {operation} {} in the container", path.display())]
    Place {
        /// `open`, `create directory`, `create device` …
        operation: &'static str,
        /// In the container.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One step of a mount failed.
    #[error("cannot mount {what} at {}: {step}", destination.display())]
    Mount {
        /// File system type or source.
        what: String,
        /// In the container.
        destination: PathBuf,
        /// `create the file system`, `set size=1x` …
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in the container is not what its name promises; this is how attacks look.
    #[error("refusing {}: {reason}", path.display())]
    Untrusted {
        /// In the container.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// Making the id mapping of a mount failed.
    #[error("cannot make the id mapping of the mount at {}", destination.display())]
    IdMap {
        /// In the container.
        destination: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Changing how mounts propagate failed.
    #[error("cannot change propagation of {}", path.display())]
    Propagation {
        /// Whose.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Changing `/` failed.
    #[error("cannot {operation} to the container's root")]
    Pivot {
        /// `pivot`, `change root` …
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The console could not be made.
    #[error("cannot {operation} for the container's console")]
    Console {
        /// Which step.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of /proc could not be read or written.
    #[error("cannot {operation} /proc/{path}")]
    Proc {
        /// `open`, `write`, `read`
        operation: &'static str,
        /// Below /proc.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
