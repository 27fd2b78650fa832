//! Removal: names first, then what no name, container or running pull needs.

use crate::Images;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// A container's claim on an image, told by the engine.
#[derive(Debug, Clone)]
pub struct Use {
    /// The image id.
    pub image: Digest,
    /// The container's name or id, for messages.
    pub container: String,
    /// A running container's image cannot even be forced away.
    pub is_running: bool,
}

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Familiar names that are gone.
    pub untagged: Vec<String>,
    /// Image ids and layer digests that are gone.
    pub deleted: Vec<Digest>,
    /// Bytes given back.
    pub reclaimed: u64,
}

/// What the store takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Images.
    pub images: usize,
    /// Of these, used by a container.
    pub active: usize,
    /// Bytes of unpacked layers, each counted once.
    pub layers: u64,
    /// Bytes of compressed blobs.
    pub blobs: u64,
    /// Bytes that [`Images::prune`] with `all` would give back.
    pub reclaimable: u64,
}

impl Images {
    /// Removes a name, or with the last name the image (`berth rmi`). `uses` is asked while the store is locked.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InUse`], [`Error::SeveralNames`].
    pub fn remove(&self, _name: &str, _force: bool, _uses: &dyn Fn() -> Vec<Use>) -> Result<Removed> {
        Err(Error::Unsupported("remove"))
    }

    /// Removes images without a tag, or with `all` those no container uses; then blobs and layers nothing needs.
    ///
    /// # Errors
    /// A damaged store or failed removal.
    pub fn prune(&self, _all: bool, _uses: &dyn Fn() -> Vec<Use>) -> Result<Removed> {
        Err(Error::Unsupported("prune"))
    }

    /// What the store takes on disk.
    ///
    /// # Errors
    /// A damaged store.
    pub fn df(&self, _uses: &dyn Fn() -> Vec<Use>) -> Result<DiskUsage> {
        Err(Error::Unsupported("df"))
    }
}
