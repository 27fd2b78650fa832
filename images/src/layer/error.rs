//! What can go wrong between a layer's bytes and its directory.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;

/// The result of layer and snapshot operations.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure in reading, writing or storing a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes could not be had, or did not decompress: truncated, corrupted, followed by garbage.
    #[error("read layer stream as {format}")]
    Stream {
        /// `tar`, `tar+gzip` or `tar+zstd`.
        format: &'static str,
        /// What the source or the decoder said.
        #[source]
        source: io::Error,
    },
    /// The uncompressed bytes are not the ones the image's config names.
    #[error("layer has diff id {found} but its image names {expected}")]
    DiffId {
        /// From the image's config.
        expected: Digest,
        /// Of the bytes received.
        found: Digest,
    },
    /// A tar header that is malformed or could be read in two ways.
    #[error("tar header at byte {offset}: {problem}")]
    Header {
        /// Offset of the header block in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// An entry that a layer must not hold.
    #[error("tar entry {entry}: {problem}")]
    Entry {
        /// Its name, quoted and shortened.
        entry: String,
        /// What is wrong.
        problem: String,
    },
    /// A bound of [`super::Limits`] reached.
    #[error("tar entry {entry}: {what} over the limit of {limit}")]
    Limit {
        /// The entry being read, quoted and shortened.
        entry: String,
        /// Which bound.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// A zstd frame whose window, and so the decoder's memory, is over [`super::Limits::zstd_window_log`].
    #[error("layer needs a zstd window over the limit of {limit_mib} MiB")]
    ZstdWindow {
        /// The largest window accepted.
        limit_mib: u64,
    },
    /// A system call for one entry failed: disk full, no right, name too long.
    #[error("{operation} {entry} in layer")]
    Write {
        /// What was attempted, `create file` for one.
        operation: &'static str,
        /// On which entry, quoted and shortened.
        entry: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Reading a tree to make a layer of it failed.
    #[error("{operation} {path}")]
    Tree {
        /// What was attempted.
        operation: &'static str,
        /// On which path below the tree's root, quoted and shortened.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The tar output could not be written.
    #[error("write tar stream")]
    Output(#[source] io::Error),
    /// A hard link whose target is in this layer nowhere, nor in those below.
    #[error("hard link {link}: its target {target} is in no layer")]
    LinkTarget {
        /// Name of the link.
        link: String,
        /// Name it points to.
        target: String,
    },
    /// A file operation on the layer store itself.
    #[error("{operation} {}", path.display())]
    Store {
        /// What was attempted.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// `layer.json` is not what this program writes.
    #[error("read layer record {}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why it does not parse.
        #[source]
        source: serde_json::Error,
    },
    /// The layer is in use, by this or another process.
    #[error("layer {0} is in use")]
    Busy(Digest),
    /// No such layer is stored.
    #[error("layer {0} is not stored")]
    Missing(Digest),
}

/// A foreign name for an error message: control characters escaped, at most 200 characters.
pub(crate) fn shown(name: &[u8]) -> String {
    const MAX: usize = 200;
    let text = String::from_utf8_lossy(&name[..name.len().min(MAX * 4)]);
    let mut out = String::from("\"");
    let mut chars = text.chars();
    for c in chars.by_ref().take(MAX) {
        out.extend(c.escape_debug());
    }
    if chars.next().is_some() || name.len() > MAX * 4 {
        out.push('…');
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn names_in_messages_are_escaped_and_short() {
        assert_eq!(shown(b"a\x1b[31m\n"), r#""a\u{1b}[31m\n""#);
        assert!(shown(&vec![b'x'; 1 << 20]).chars().count() < 210);
    }
}
