//! Files in and out of a container without entering it.
//!
//! Everything goes through directory descriptors: the container's root is opened once, paths in it are resolved by the
//! kernel with `openat2(RESOLVE_IN_ROOT)`, and below that each step is an `openat` that follows nothing. A symlink swapped
//! in by the container at any moment leads to a place inside the container or to an error. No program of the container
//! runs, and no host file is named by a path the container chose (CVE-2019-14271, CVE-2018-15664).

mod archive;
mod rooted;
mod transfer;
mod tree;

use std::io;
use std::path::PathBuf;

pub use archive::write_as;
pub use rooted::{Rootfs, open_dir_beneath};
pub use transfer::{
    Landing, Options, There, from_container, into_container, landing, names_contents, read_archive,
    write_archive,
};
pub use tree::copy_dir_contents;

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A root, file or directory could not be opened.
    #[error("open {path}")]
    Open {
        /// The path as the user or the walk names it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The stopped container's filesystem could not be put together.
    #[error("mount root filesystem of the stopped container: {step}")]
    Mount {
        /// The step of the mount API.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An entry could not be read.
    #[error("read {path}")]
    Read {
        /// The entry.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An entry could not be made.
    #[error("write {path}")]
    Write {
        /// The entry.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Source and destination do not fit together.
    #[error("copy to {path}: {reason}")]
    Shape {
        /// The destination.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
    /// The archive on stdin is malformed or tries to leave the destination.
    #[error("archive entry {path}: {reason}")]
    Entry {
        /// The entry's name.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive stream broke.
    #[error("{operation} archive")]
    Archive {
        /// `read` or `write`.
        operation: &'static str,
        /// What the stream said.
        #[source]
        source: io::Error,
    },
    /// Directories nested deeper than descriptors allow.
    #[error("{path} is nested deeper than {max} directories")]
    Depth {
        /// The directory.
        path: PathBuf,
        /// The bound.
        max: usize,
    },
}
