//! Local image -> registry: blobs that are missing there, then manifests, exactly as stored so that digests stay.

use crate::Images;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::reference::Reference;

impl Images {
    /// Pushes the image named `reference` to its registry; returns the digest it has there. Blocks like
    /// [`Images::pull`].
    ///
    /// # Errors
    /// [`Error::NotFound`], or whatever the registry or the network does wrong.
    pub fn push(&self, _reference: &Reference, _progress: &dyn Progress) -> Result<Digest> {
        Err(Error::Unsupported("push"))
    }
}
