//! What the store takes on disk: as a whole, and image by image.

use std::collections::{BTreeMap, BTreeSet};

use crate::Images;
use crate::digest::Digest;
use crate::error::Result;
use crate::gc::Use;
use crate::image::{Image, Record};

/// What the store takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Images.
    pub images: usize,
    /// Of these, used by a container.
    pub active: usize,
    /// Bytes of unpacked layers and of their disks for guests, each counted once.
    pub layers: u64,
    /// Bytes of compressed blobs.
    pub blobs: u64,
    /// Bytes that [`Images::prune`] with `all` would give back.
    pub reclaimable: u64,
}

/// What one image takes on disk.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    /// The image, with all its names.
    pub image: Image,
    /// Bytes of layers that other images have too.
    pub shared: u64,
    /// Bytes of layers that are its own.
    pub unique: u64,
    /// How many containers use it.
    pub containers: usize,
}

impl Images {
    /// What the store takes on disk.
    ///
    /// # Errors
    /// A damaged store.
    pub fn df(&self, uses: &dyn Fn() -> Vec<Use>) -> Result<DiskUsage> {
        let used: BTreeSet<Digest> = uses().into_iter().map(|u| u.image).collect();
        let records = self.records()?;
        let (active, all): (Vec<&Record>, Vec<&Record>) = (
            records
                .iter()
                .filter(|r| used.contains(&r.config.digest))
                .collect(),
            records.iter().collect(),
        );
        let count = |records: &[&Record]| {
            records
                .iter()
                .map(|r| &r.config.digest)
                .collect::<BTreeSet<_>>()
                .len()
        };
        let kept = self.live(active.iter().copied())?;
        let mut usage = DiskUsage {
            images: count(&all),
            active: count(&active),
            ..DiskUsage::default()
        };
        let layers = self.layers.list().map_err(self.layers_error())?;
        for layer in &layers {
            let bytes = layer.record().size + layer.disk_bytes();
            usage.layers += bytes;
            if !kept.layers.contains(layer.key()) {
                usage.reclaimable += bytes;
            }
        }
        for (digest, size) in self.content.list()? {
            usage.blobs += size;
            if !kept.blobs.contains(&digest) {
                usage.reclaimable += size;
            }
        }
        Ok(usage)
    }

    /// What each image takes on disk, newest first.
    ///
    /// # Errors
    /// A damaged store.
    pub fn usage_of_each(&self, uses: &dyn Fn() -> Vec<Use>) -> Result<Vec<ImageUsage>> {
        let uses = uses();
        let images = self.list()?;
        let mut owners: BTreeMap<Digest, usize> = BTreeMap::new();
        for image in &images {
            // An image may have a layer twice.
            let keys: BTreeSet<&Digest> = image.held.iter().map(|layer| layer.key()).collect();
            for key in keys {
                *owners.entry(key.clone()).or_default() += 1;
            }
        }
        let sum = |image: &Image, shared: bool| {
            let layers = image.held.iter();
            let fitting = layers.filter(|layer| (owners[layer.key()] > 1) == shared);
            fitting.map(|layer| layer.record().size).sum()
        };
        Ok(images
            .into_iter()
            .map(|image| ImageUsage {
                shared: sum(&image, true),
                unique: sum(&image, false),
                containers: uses.iter().filter(|u| u.image == image.id).count(),
                image,
            })
            .collect())
    }
}
