//! A tar of a root filesystem becomes an image with one layer.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};

use super::load::{ingest, sniff};
use super::{ImportOptions, changes};
use crate::config::{History, ImageConfig, RootFs};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer::{Compression, Limits};
use crate::manifest::{Descriptor, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::snapshot::Slot;
use crate::{Error, Images, Result, media_type};

impl Images {
    /// Makes an image with one layer of a tar of a root filesystem (plain, gzip or zstd). Returns its id.
    ///
    /// # Errors
    /// Anything wrong with the tar or with a change.
    pub fn import(
        &self,
        tar: &mut (dyn Read + Send),
        name: Option<&Reference>,
        options: &ImportOptions,
    ) -> Result<Digest> {
        let mut config = ImageConfig::default();
        for change in &options.changes {
            changes::apply(&mut config.config, change).map_err(|problem| Error::Archive {
                object: format!("change {change:?}"),
                problem,
            })?;
        }
        let _hold = self.content.hold()?;
        let layers = |source| Error::Layers {
            object: "import".to_owned(),
            source,
        };
        let scratch = self.layers.scratch().map_err(layers)?;
        let path = scratch.path().join("blob");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::file("create", &path))?;
        let (compression, tar) = sniff(tar).map_err(|source| Error::ArchiveStream {
            operation: "read",
            source,
        })?;
        let mut tee = Tee {
            from: tar,
            to: &mut file,
            hasher: Hasher::new(Algorithm::Sha256),
            size: 0,
        };
        let pending = self
            .layers
            .receive(compression, &mut tee, None, &Limits::default())
            .map_err(layers)?;
        let (digest, size) = (tee.hasher.finish(), tee.size);
        file.rewind().map_err(Error::file("rewind", &path))?;
        ingest(self, &digest, size, &mut file)?;

        let now = jiff::Timestamp::now().to_string();
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        config.created = Some(now.clone());
        config.architecture.clone_from(&platform.architecture);
        config.os.clone_from(&platform.os);
        config.variant.clone_from(&platform.variant);
        config.rootfs = RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![pending.diff_id().clone()],
        };
        let comment = options
            .message
            .clone()
            .unwrap_or_else(|| "Imported from -".to_owned());
        config.history = vec![History {
            created: Some(now),
            comment: Some(comment),
            ..History::default()
        }];
        let layer = Descriptor::new(layer_type(compression), digest, size);
        let _held = self.layers.commit(vec![Slot::Pending(pending)]).map_err(layers)?;
        let config = self.content.put(media_type::OCI_CONFIG, &json(&config)?)?;
        let id = config.digest.clone();
        let manifest = put_manifest(self, config.clone(), vec![layer])?;
        self.bind(name, &manifest, &manifest, &config)?;
        Ok(id)
    }
}

/// Stores an OCI manifest over blobs that are stored.
pub(super) fn put_manifest(
    images: &Images,
    config: Descriptor,
    layers: Vec<Descriptor>,
) -> Result<Descriptor> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        config,
        layers,
        annotations: None,
    };
    images.content.put(media_type::OCI_MANIFEST, &json(&manifest)?)
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::ArchiveStream {
        operation: "encode",
        source: e.into(),
    })
}

pub(super) fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => media_type::OCI_LAYER,
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    }
}

/// Keeps what is read, and its digest.
struct Tee<'f, R> {
    from: R,
    to: &'f mut File,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(out)?;
        self.to.write_all(&out[..n])?;
        self.hasher.update(&out[..n]);
        self.size += n as u64;
        Ok(n)
    }
}
