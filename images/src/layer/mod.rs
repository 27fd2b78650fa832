//! A layer: a tar stream that becomes a directory, and a directory that becomes a tar stream.
//!
//! ```text
//! blob bytes ── stream (decompress, hash) ── tar::Reader (one parser) ── apply (beneath a root) ──► upper-dir form
//! upper-dir form ── diff ── tar::Writer ──► the same tar bytes for the same tree
//! ```
//!
//! *Upper-dir form* is what overlayfs reads: a removed name is a character device 0:0, a directory that hides the ones
//! below it carries the xattr `trusted.overlay.opaque=y` (`Documentation/filesystems/overlayfs.rst`). The tar form is
//! image-spec `layer.md`: `.wh.NAME` and `.wh..wh..opq`.
//!
//! Every byte of a layer is foreign. Names are resolved by the kernel beneath the layer's root and nowhere else, sizes are
//! held to [`Limits`], and an archive that two parsers could read differently is refused.

mod apply;
pub(crate) mod beneath;
pub(crate) mod diff;
pub(crate) mod error;
mod limits;
pub(crate) mod listing;
pub(crate) mod stream;
pub mod tar;
pub(crate) mod tree;

pub use apply::{Applied, DeferredLink, apply};
pub use diff::{DiffOptions, Form, diff};
pub use error::{Error, Result};
pub use limits::Limits;
pub use stream::{Compression, Received, unpack};
