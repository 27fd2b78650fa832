//! What can go wrong with images. Each variant names the operation and carries its object; the cause is its source.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::{config, layer, manifest, reference, registry};

/// A failed image operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reference does not parse.
    #[error("invalid reference {text:?}")]
    Reference {
        /// As given.
        text: String,
        /// Which part is wrong.
        source: reference::ParseError,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// A verb: open, write, rename, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// From the kernel.
        source: io::Error,
    },
    /// No image has this name or id.
    #[error("no such image: {0}")]
    NotFound(String),
    /// An abbreviated id fits several images.
    #[error("image id {0} is ambiguous")]
    AmbiguousId(String),
    /// The record or blob in the store is damaged.
    #[error("image store: {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A blob the store should have is absent.
    #[error("blob {0} is missing from the store")]
    MissingBlob(Digest),
    /// A manifest or index is refused.
    #[error("manifest of {object}")]
    Manifest {
        /// The reference or digest.
        object: String,
        /// Why.
        source: manifest::Error,
    },
    /// An image config is refused.
    #[error("config of {object}")]
    Config {
        /// The reference or digest.
        object: String,
        /// Why.
        source: config::Error,
    },
    /// The index has no manifest for the platform.
    #[error("{object} has no image for {platform} (it offers {offers})")]
    NoPlatform {
        /// The reference.
        object: String,
        /// What was wanted.
        platform: String,
        /// What there is.
        offers: String,
    },
    /// Containers use the image.
    #[error("image {image} is used by container {container}")]
    InUse {
        /// As the user named it.
        image: String,
        /// One that uses it.
        container: String,
    },
    /// An image id has several names.
    #[error("image {0} has several names")]
    SeveralNames(String),
    /// More or fewer bytes than the descriptor says.
    #[error("blob {digest} has {received} bytes where its descriptor says {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Announced.
        expected: u64,
        /// Seen (the count stops where it exceeds what was announced).
        received: u64,
    },
    /// The bytes are not the ones asked for.
    #[error("blob {expected} is corrupt: its bytes hash to {received}")]
    DigestMismatch {
        /// Asked for.
        expected: Digest,
        /// Of what came.
        received: Digest,
    },
    /// A layer of an image is gone from the store.
    #[error("layer {diff_id} of {image} is missing from the store")]
    MissingLayer {
        /// The record's name.
        image: String,
        /// The layer.
        diff_id: Digest,
    },
    /// The layer store failed.
    #[error("layers of {object}")]
    Layers {
        /// The image.
        object: String,
        /// Why.
        source: layer::Error,
    },
    /// A digest follows from content and cannot be given.
    #[error("cannot tag as {0}: a digest is not a tag")]
    TagWithDigest(String),
    /// There is nowhere to keep credentials.
    #[error("cannot find the credentials file: no home directory")]
    NoHome,
    /// A signal ended the transfer.
    #[error("stopped by {}", signal_name(*.0))]
    Interrupted(i32),
    /// What stores or unpacks a layer gave up, so the rest of it is not worth fetching.
    #[error("the rest of the layer is not wanted")]
    Stopped,
    /// A document is larger than berth reads.
    #[error("{object} is larger than {max} bytes")]
    TooLarge {
        /// The document.
        object: String,
        /// The limit in bytes.
        max: u64,
    },
    /// The registry or the way to it failed.
    #[error("{operation} {object}")]
    Registry {
        /// A verb: pull, push, log in to, …
        operation: &'static str,
        /// Reference, blob or registry.
        object: String,
        /// Why.
        source: registry::Error,
    },
    /// A layer does not unpack.
    #[error("cannot unpack layer {digest}")]
    Unpack {
        /// The compressed layer.
        digest: Digest,
        /// Why.
        source: layer::Error,
    },
    /// The image is not here and must not be fetched.
    #[error("image {0} is not here and the pull policy is never")]
    NotPulled(String),
    /// The async runtime could not start.
    #[error("cannot start the transfer")]
    Runtime(#[source] io::Error),
    /// An archive or layout that cannot be loaded, or a place that cannot be saved to.
    #[error("archive {object}: {problem}")]
    Archive {
        /// The file in it, or what it is about.
        object: String,
        /// What is wrong.
        problem: String,
    },
    /// What should hold images holds neither form of them.
    #[error("not an image archive: neither manifest.json nor index.json is in it")]
    NoArchive,
    /// Reading or writing an archive failed.
    #[error("{operation} archive")]
    ArchiveStream {
        /// A verb: read, write.
        operation: &'static str,
        /// From the stream.
        source: io::Error,
    },
    /// Not (yet) possible.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

impl Error {
    /// For `map_err`: a file operation on `path`.
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// For `map_err`: a registry operation on `object`.
    pub(crate) fn registry(
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(registry::Error) -> Self {
        move |source| Self::Registry {
            operation,
            object: object.to_string(),
            source,
        }
    }
}

/// Shorthand for this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGINT => "SIGINT".to_owned(),
        libc::SIGTERM => "SIGTERM".to_owned(),
        libc::SIGHUP => "SIGHUP".to_owned(),
        other => format!("signal {other}"),
    }
}
