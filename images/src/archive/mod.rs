//! Images in files: `save`, `load`, `import`, and `export` of a root filesystem.
//!
//! ```text
//! save    image store ──► docker archive | OCI archive | OCI layout directory
//! load    the same three, plain, gzip or zstd, from a file, a directory or a pipe ──► image store
//! import  tar of a root filesystem ──► image with one layer
//! export  directory ──► tar of a root filesystem
//! ```
//!
//! What is loaded is foreign: names become references only through the parser, blobs are stored under the digest they
//! hash to, JSON is read up to [`METADATA_MAX`] bytes.

mod changes;
mod healthcheck;
mod import;
mod load;
mod save;

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::digest::Digest;
use crate::layer;
use crate::platform::Platform;

/// Bytes of one JSON document accepted from an archive (CVE-2023-25153).
pub const METADATA_MAX: u64 = 4 << 20;

/// How `save` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `manifest.json` and `repositories`, layers uncompressed, as `docker save` writes.
    #[default]
    DockerArchive,
    /// An OCI image layout in a tar.
    OciArchive,
    /// An OCI image layout as a directory.
    OciDir,
}

impl std::str::FromStr for Format {
    type Err = String;

    /// Parses the words of `--format`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "docker-archive" => Ok(Self::DockerArchive),
            "oci-archive" => Ok(Self::OciArchive),
            "oci-dir" => Ok(Self::OciDir),
            other => Err(format!(
                "unknown format {other:?} (docker-archive, oci-archive, oci-dir)"
            )),
        }
    }
}

/// Where `save` writes to.
pub enum SaveTo<'a> {
    /// A file or pipe, for the archive formats.
    Stream(&'a mut dyn Write),
    /// A directory, for [`Format::OciDir`]; made if absent, must be empty otherwise.
    Directory(&'a Path),
}

/// Where `load` reads from.
pub enum LoadFrom<'a> {
    /// An archive, compressed or not, from anything that reads once.
    Stream(&'a mut (dyn Read + Send)),
    /// An OCI layout directory, or an archive file.
    Path(&'a Path),
}

/// An image that `load` brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its names in familiar form; empty if the archive gave none.
    pub names: Vec<String>,
    /// Its config digest.
    pub id: Digest,
}

/// Options of [`crate::Images`]'s import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Dockerfile instructions applied to the config: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME, WORKDIR.
    pub changes: Vec<String>,
    /// Comment in the image's history.
    pub message: Option<String>,
    /// What the image runs on; `None` means this host.
    pub platform: Option<Platform>,
}

/// Writes the root filesystem at `root`, a mounted container for one, as a tar. Returns the bytes written.
///
/// # Errors
/// As [`layer::diff`](fn@layer::diff).
pub fn export(root: BorrowedFd<'_>, out: impl Write) -> layer::Result<u64> {
    layer::diff(
        root,
        out,
        &layer::DiffOptions {
            form: layer::Form::Rootfs,
            list_root: true,
            exclude: Vec::new(),
        },
    )
}
