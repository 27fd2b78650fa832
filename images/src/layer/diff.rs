//! A directory becomes a tar stream: always the same bytes for the same tree.

use std::io::Write;
use std::os::fd::BorrowedFd;

use super::error::{Error, Result};

/// What the tree is, hence how its overlayfs marks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// An overlayfs upper directory: device 0:0 becomes `.wh.NAME`, an opaque directory holds `.wh..wh..opq`.
    #[default]
    Layer,
    /// A whole root filesystem, such as a mounted container (`export`): no whiteouts.
    Rootfs,
}

/// Options of [`diff`].
#[derive(Debug, Clone, Default)]
pub struct DiffOptions {
    /// What the tree is.
    pub form: Form,
    /// Paths relative to the root, without a leading slash, that are left out with all below them: mount points made
    /// for a container. Exact match.
    pub exclude: Vec<Vec<u8>>,
}

/// Writes the tree at `root` as an OCI layer tar: entries sorted by name, parents first, times in nanoseconds, hard links,
/// xattrs, PAX records only where ustar does not reach. Stays on `root`'s filesystem view as it is mounted; sockets are left out.
/// Returns the number of bytes written.
///
/// # Errors
/// [`Error::Tree`] when the tree cannot be read, [`Error::Output`] when `out` fails.
pub fn diff(_root: BorrowedFd<'_>, _out: impl Write, _options: &DiffOptions) -> Result<u64> {
    Err(Error::Output(std::io::ErrorKind::Unsupported.into()))
}
