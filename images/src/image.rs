//! Images as callers see them: a name resolved to config and layers on disk.
//!
//! ```text
//! ROOT/images/<sha256 of the name>.json    {name, target, manifest, config, created}
//! ```
//!
//! A record's name is a canonical reference (`docker.io/library/busybox:latest`, `…@sha256:…`) or, for an image that lost
//! its last name, its manifest's bare digest.

use std::path::{Path, PathBuf};

use crate::Images;
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::platform::Platform;

/// An image in the store, whole: every layer is unpacked.
#[derive(Debug, Clone)]
pub struct Image {
    /// Every name it has in familiar form, tags first (`busybox:latest`), without digests.
    pub names: Vec<String>,
    /// Every name with a digest in familiar form (`busybox@sha256:…`).
    pub repo_digests: Vec<String>,
    /// The manifest of this platform.
    pub manifest_digest: Digest,
    /// The config, which is the image id.
    pub id: Digest,
    /// How to run it.
    pub config: ImageConfig,
    /// The manifest itself.
    pub manifest: Manifest,
    /// Unpacked layers, lowest first: `ROOT/layers/<hex>/fs`.
    pub layers: Vec<PathBuf>,
    /// Bytes of all unpacked layers.
    pub size: u64,
    /// RFC 3339, from the config.
    pub created: Option<String>,
    /// What it runs on.
    pub platform: Platform,
}

impl Images {
    /// Finds an image by reference, by id (`sha256:…`), or by the start of an id. Reads a few small files, hashes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::AmbiguousId`], or a damaged store.
    pub fn resolve(&self, name: &str) -> Result<Image> {
        Err(Error::NotFound(name.to_owned()))
    }

    /// Every image, newest first. An image with several names appears once.
    ///
    /// # Errors
    /// A damaged store.
    pub fn list(&self) -> Result<Vec<Image>> {
        Err(Error::Unsupported("list"))
    }

    /// Gives the image `source` another name; a name that meant another image moves.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Reference`], or a failed write.
    pub fn tag(&self, _source: &str, _target: &str) -> Result<()> {
        Err(Error::Unsupported("tag"))
    }

    /// The store's root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}
