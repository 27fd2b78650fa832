//! Images as callers see them: a name resolved to config and layers on disk.
//!
//! ```text
//! ROOT/images/<sha256 of the name>.json    Record {name, target, manifest, config}
//! ```
//!
//! A record's name is a canonical reference (`docker.io/library/busybox:latest`, `…@sha256:…`) or, for an image that lost
//! its last name, its manifest's bare digest. Records are the roots of garbage collection: what none leads to may go.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Images;
use crate::config::ImageConfig;
use crate::content::atomic;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{self, CONFIG_BYTES_MAX, Descriptor, MANIFEST_BYTES_MAX, Manifest, Parsed};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::snapshot::LayerRef;

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Canonical reference, or a bare manifest digest.
    pub name: String,
    /// What the registry calls by this name: an index, or the manifest itself.
    pub target: Descriptor,
    /// The manifest of the platform that was pulled.
    pub manifest: Descriptor,
    /// Its config; the digest is the image id.
    pub config: Descriptor,
}

impl Record {
    /// The name as a reference; none for a bare digest, which would parse as an image called `sha256`.
    pub(crate) fn reference(&self) -> Option<Reference> {
        if Digest::parse(&self.name).is_ok() {
            return None;
        }
        Reference::parse(&self.name).ok()
    }

    /// Whether it is a name with a tag.
    pub(crate) fn is_tagged(&self) -> bool {
        self.reference().is_some_and(|r| r.digest().is_none())
    }
}

/// An image in the store, whole: every layer is unpacked.
#[derive(Debug, Clone)]
pub struct Image {
    /// Names with a tag in familiar form (`busybox:latest`). From [`Images::resolve`] the one asked for, from
    /// [`Images::list`] all.
    pub names: Vec<String>,
    /// Names with a digest in familiar form (`busybox@sha256:…`), likewise.
    pub repo_digests: Vec<String>,
    /// What a registry calls by its name: an index, or the manifest itself. Of the one record when several disagree.
    pub target: Descriptor,
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
    /// The same layers, held against removal while this value lives.
    pub held: Vec<LayerRef>,
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
        self.image(&self.find_record(name)?)
    }

    /// The image of a record, under its name.
    pub(crate) fn image(&self, record: &Record) -> Result<Image> {
        let mut image = self.load_record(record)?;
        image.add_name(record);
        Ok(image)
    }

    /// Every image, newest first. An image with several names appears once.
    ///
    /// # Errors
    /// A damaged store.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut by_id: BTreeMap<Digest, Image> = BTreeMap::new();
        for record in self.records()? {
            let id = &record.config.digest;
            if !by_id.contains_key(id) {
                match self.load_record(&record) {
                    Ok(image) => {
                        by_id.insert(id.clone(), image);
                    }
                    // Removed since its record was read.
                    Err(Error::MissingBlob(_) | Error::MissingLayer { .. }) => continue,
                    Err(e) => return Err(e),
                }
            }
            if let Some(image) = by_id.get_mut(id) {
                image.add_name(&record);
            }
        }
        let mut images: Vec<Image> = by_id.into_values().collect();
        for image in &mut images {
            image.names.sort();
            image.repo_digests.sort();
        }
        let time = |i: &Image| {
            i.created
                .as_deref()
                .and_then(|c| c.parse::<jiff::Timestamp>().ok())
        };
        images.sort_by(|a, b| time(b).cmp(&time(a)).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    /// Gives the image `source` another name; a name that meant another image moves.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Reference`], or a failed write.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let _hold = self.content.hold()?;
        let found = self.find_record(source)?;
        let target = Reference::parse(target).map_err(|source| Error::Reference {
            text: target.to_owned(),
            source,
        })?;
        if target.digest().is_some() {
            return Err(Error::TagWithDigest(target.to_string()));
        }
        self.bind(Some(&target), &found.target, &found.manifest, &found.config)
    }

    /// Makes `name` mean this image; without a name the image is kept under its bare digest unless it has one already. An
    /// image that loses its last name so is kept under its bare digest.
    pub(crate) fn bind(
        &self,
        name: Option<&Reference>,
        target: &Descriptor,
        manifest: &Descriptor,
        config: &Descriptor,
    ) -> Result<()> {
        let bare = manifest.digest.to_string();
        let name = match name {
            Some(name) => name.canonical(),
            None if self
                .records()?
                .iter()
                .any(|r| r.manifest.digest == manifest.digest) =>
            {
                return Ok(());
            }
            None => bare.clone(),
        };
        let replaced = self
            .read_record(&name)?
            .filter(|r| r.manifest.digest != manifest.digest);
        let record = Record {
            name: name.clone(),
            target: target.clone(),
            manifest: manifest.clone(),
            config: config.clone(),
        };
        if let Some(old) = replaced
            && !self
                .records()?
                .iter()
                .any(|r| r.name != name && r.manifest.digest == old.manifest.digest)
        {
            self.write_record(&Record {
                name: old.manifest.digest.to_string(),
                ..old
            })?;
        }
        self.write_record(&record)?;
        if name != bare {
            self.remove_record(&bare)?;
        }
        Ok(())
    }

    /// The record a user means by `name`.
    pub(crate) fn find_record(&self, name: &str) -> Result<Record> {
        if let Ok(digest) = Digest::parse(name) {
            let found = self
                .records()?
                .into_iter()
                .find(|r| r.config.digest == digest || r.manifest.digest == digest);
            return found.ok_or_else(|| Error::NotFound(name.to_owned()));
        }
        if let Ok(reference) = Reference::parse(name)
            && let Some(record) = self.read_record(&record_name(&reference))?
        {
            return Ok(record);
        }
        let is_hex = !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex {
            return match Reference::parse(name) {
                Ok(reference) => Err(Error::NotFound(reference.to_string())),
                Err(source) => Err(Error::Reference {
                    text: name.to_owned(),
                    source,
                }),
            };
        }
        let prefix = name.to_ascii_lowercase();
        let mut found: Option<Record> = None;
        for record in self
            .records()?
            .into_iter()
            .filter(|r| r.config.digest.hex().starts_with(&prefix))
        {
            match &found {
                Some(other) if other.config.digest != record.config.digest => {
                    return Err(Error::AmbiguousId(name.to_owned()));
                }
                _ => found = Some(record),
            }
        }
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    /// Every record, ordered by name.
    pub(crate) fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for path in atomic::entries(&self.root.join("images"))? {
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            records.extend(read_json(&path)?);
        }
        records.sort_by(|a: &Record, b| a.name.cmp(&b.name));
        Ok(records)
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.root
            .join("images")
            .join(format!("{}.json", Digest::of(name.as_bytes()).hex()))
    }

    fn read_record(&self, name: &str) -> Result<Option<Record>> {
        read_json(&self.record_path(name))
    }

    fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.record_path(&record.name);
        let bytes = serde_json::to_vec(record).map_err(|source| Error::Damaged {
            path: path.clone(),
            source,
        })?;
        atomic::write(&path, &bytes, 0o600)
    }

    /// Removes a record; whether there was one.
    pub(crate) fn remove_record(&self, name: &str) -> Result<bool> {
        let path = self.record_path(name);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::file("remove", &path)(e)),
        }
    }

    /// Puts an image back among the dangling ones.
    pub(crate) fn keep_bare(&self, record: &Record) -> Result<()> {
        self.write_record(&Record {
            name: record.manifest.digest.to_string(),
            ..record.clone()
        })
    }

    /// The manifest and config a record leads to.
    pub(crate) fn documents(&self, record: &Record) -> Result<(Manifest, ImageConfig)> {
        let object = || record.name.clone();
        let bytes = self.content.read(&record.manifest.digest, MANIFEST_BYTES_MAX)?;
        let parsed = manifest::parse(&bytes, &record.manifest.media_type);
        let manifest = match parsed.map_err(|source| Error::Manifest {
            object: object(),
            source,
        })? {
            Parsed::Manifest(manifest) => *manifest,
            Parsed::Index(_) => {
                let source = manifest::Error::Ambiguous;
                return Err(Error::Manifest {
                    object: object(),
                    source,
                });
            }
        };
        let bytes = self.content.read(&record.config.digest, CONFIG_BYTES_MAX)?;
        let config = ImageConfig::parse(&bytes, manifest.layers.len()).map_err(|source| Error::Config {
            object: object(),
            source,
        })?;
        Ok((manifest, config))
    }

    pub(crate) fn load_record(&self, record: &Record) -> Result<Image> {
        let (manifest, config) = self.documents(record)?;
        let object = || record.name.clone();
        let mut held = Vec::with_capacity(config.rootfs.diff_ids.len());
        let found = self.layers.find(&config.rootfs.diff_ids);
        let found = found.map_err(|source| Error::Layers {
            object: object(),
            source,
        })?;
        for (layer, diff_id) in found.into_iter().zip(&config.rootfs.diff_ids) {
            held.push(layer.ok_or_else(|| Error::MissingLayer {
                image: object(),
                diff_id: diff_id.clone(),
            })?);
        }
        Ok(Image {
            names: Vec::new(),
            repo_digests: Vec::new(),
            target: record.target.clone(),
            manifest_digest: record.manifest.digest.clone(),
            id: record.config.digest.clone(),
            layers: held.iter().map(LayerRef::fs).collect(),
            size: held.iter().map(|l| l.record().size).sum(),
            held,
            created: config.created.clone(),
            platform: config.platform(),
            manifest,
            config,
        })
    }

    /// An image's layers as EROFS images for guests, lowest first. Blocking: those that nobody has asked for yet are made.
    ///
    /// # Errors
    /// [`Error::Layers`].
    pub fn disks(&self, image: &Image) -> Result<Vec<PathBuf>> {
        let disks = image.held.iter().map(|layer| self.layers.disk(layer));
        disks
            .collect::<crate::layer::Result<_>>()
            .map_err(|source| Error::Layers {
                object: image.id.to_string(),
                source,
            })
    }

    /// The store's root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Image {
    fn add_name(&mut self, record: &Record) {
        let Some(reference) = record.reference() else {
            return;
        };
        match reference.digest() {
            Some(_) => self.repo_digests.push(reference.to_string()),
            None => self.names.push(reference.to_string()),
        }
    }
}

/// The record that serves a reference: with both tag and digest, the digest decides.
pub(crate) fn record_name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => reference.at_digest(digest).canonical(),
        None => reference.canonical(),
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::file("read", path)(e)),
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| Error::Damaged {
        path: path.to_owned(),
        source,
    })
}
