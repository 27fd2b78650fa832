//! Reading docker archives, OCI archives and OCI layouts.
//!
//! An archive that comes as a stream may name its layers before or after its index, so it is first unpacked into a private
//! directory like any layer, which holds its names and sizes to the same rules. From there on an archive and a layout are the
//! same: files looked up beneath a descriptor.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::import::{layer_type, put_manifest};
use super::{LoadFrom, Loaded, METADATA_MAX};
use crate::config::ImageConfig;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer::{self, Compression, Limits};
use crate::manifest::{self, CONFIG_BYTES_MAX, Descriptor, Index, MANIFEST_BYTES_MAX, Manifest, Parsed};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::snapshot::{LayerRef, Slot};
use crate::{Error, Images, Result, media_type};

/// Images in one archive.
const IMAGES_MAX: usize = 1000;

/// One image of a docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Images {
    /// Reads every image of an archive or layout into the store. Blocking.
    ///
    /// # Errors
    /// Anything wrong with the archive; blobs and layers verified before the error stay until the next collection.
    pub fn load(&self, from: LoadFrom<'_>) -> Result<Vec<Loaded>> {
        let _hold = self.content.hold()?;
        match from {
            LoadFrom::Path(path) => {
                let file = File::open(path).map_err(Error::file("open", path))?;
                if file.metadata().map_err(Error::file("stat", path))?.is_dir() {
                    return self.load_tree(&Tree { root: file.into() });
                }
                self.load_stream(file)
            }
            LoadFrom::Stream(stream) => self.load_stream(stream),
        }
    }

    fn load_stream(&self, stream: impl Read + Send) -> Result<Vec<Loaded>> {
        let layers = |source| Error::Layers {
            object: "archive".to_owned(),
            source,
        };
        let scratch = self.layers.scratch().map_err(layers)?;
        let root = scratch.open_fs().map_err(layers)?;
        let (compression, stream) = sniff(stream).map_err(|source| Error::ArchiveStream {
            operation: "read",
            source,
        })?;
        layer::unpack(
            root.as_fd(),
            compression,
            stream,
            Algorithm::Sha256,
            &Limits::default(),
        )
        .map_err(layers)?;
        self.load_tree(&Tree { root })
    }

    fn load_tree(&self, tree: &Tree) -> Result<Vec<Loaded>> {
        // docker writes both since 25; only the index keeps the manifests' digests.
        if tree.exists("index.json") {
            return self.load_layout(tree);
        }
        if tree.exists("manifest.json") {
            let images: Vec<DockerImage> = tree.json("manifest.json")?;
            check_count(images.len())?;
            return images.iter().map(|image| self.load_docker(tree, image)).collect();
        }
        Err(Error::NoArchive)
    }

    fn load_layout(&self, tree: &Tree) -> Result<Vec<Loaded>> {
        let index: Index = tree.json("index.json")?;
        check_count(index.manifests.len())?;
        let mut loaded: Vec<Loaded> = Vec::new();
        for target in &index.manifests {
            let annotation = |key: &str| target.annotations.as_ref().and_then(|a| a.get(key));
            let name = annotation("io.containerd.image.name").cloned().or_else(|| {
                // The specification allows a bare tag here, which names nothing.
                annotation("org.opencontainers.image.ref.name")
                    .filter(|n| n.contains(['/', ':']))
                    .cloned()
            });
            let image = self.load_manifest(tree, target, name.as_deref())?;
            match loaded.iter_mut().find(|other| other.id == image.id) {
                Some(other) => other.names.extend(image.names),
                None => loaded.push(image),
            }
        }
        Ok(loaded)
    }

    fn load_manifest(&self, tree: &Tree, target: &Descriptor, name: Option<&str>) -> Result<Loaded> {
        let object = target.digest.to_string();
        let parse = |d: &Descriptor, bytes: &[u8]| {
            manifest::parse(bytes, &d.media_type).map_err(|source| Error::Manifest {
                object: d.digest.to_string(),
                source,
            })
        };
        let bytes = tree.blob(target, MANIFEST_BYTES_MAX)?;
        self.content.put_as(&target.digest, &bytes)?;
        let (descriptor, manifest) = match parse(target, &bytes)? {
            Parsed::Manifest(manifest) => (target.clone(), manifest),
            Parsed::Index(index) => {
                let host = Platform::host();
                let chosen = index.choose(&host).ok_or_else(|| Error::NoPlatform {
                    object: object.clone(),
                    platform: host.to_string(),
                    offers: index.offers(),
                })?;
                let bytes = tree.blob(chosen, MANIFEST_BYTES_MAX)?;
                self.content.put_as(&chosen.digest, &bytes)?;
                match parse(chosen, &bytes)? {
                    Parsed::Manifest(manifest) => (chosen.clone(), manifest),
                    Parsed::Index(_) => return Err(wrong(&object, "an index in an index")),
                }
            }
        };
        manifest.check().map_err(|source| Error::Manifest {
            object: object.clone(),
            source,
        })?;
        let bytes = tree.blob(&manifest.config, CONFIG_BYTES_MAX)?;
        self.content.put_as(&manifest.config.digest, &bytes)?;
        let config = parse_config(&object, &bytes, manifest.layers.len())?;
        for layer in &manifest.layers {
            let mut file = tree.open(&Tree::blob_path(&layer.digest))?;
            ingest(self, &layer.digest, layer.size, &mut file)?;
        }
        let _held = self.unpack_all(&object, &manifest, &config)?;
        let bare = |d: &Descriptor| Descriptor {
            annotations: None,
            ..d.clone()
        };
        let names: Vec<&str> = name.into_iter().collect();
        self.name_all(&names, &bare(target), &bare(&descriptor), &manifest.config)
    }

    fn load_docker(&self, tree: &Tree, image: &DockerImage) -> Result<Loaded> {
        let bytes = tree.read(&image.config, CONFIG_BYTES_MAX)?;
        let config = parse_config(&image.config, &bytes, image.layers.len())?;
        let config_descriptor = self.content.put(media_type::OCI_CONFIG, &bytes)?;
        let mut layers = Vec::with_capacity(image.layers.len());
        for name in &image.layers {
            let mut file = tree.open(name)?;
            let read = |e| Error::ArchiveStream {
                operation: "read",
                source: e,
            };
            let (digest, size) = hash(&mut file).map_err(read)?;
            file.rewind().map_err(read)?;
            let (compression, _) = sniff(&mut file).map_err(read)?;
            file.rewind().map_err(read)?;
            ingest(self, &digest, size, &mut file)?;
            layers.push(Descriptor::new(layer_type(compression), digest, size));
        }
        let descriptor = put_manifest(self, config_descriptor.clone(), layers.clone())?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: None,
            config: config_descriptor.clone(),
            layers,
            annotations: None,
        };
        let _held = self.unpack_all(&image.config, &manifest, &config)?;
        let names: Vec<&str> = image.repo_tags.iter().flatten().map(String::as_str).collect();
        self.name_all(&names, &descriptor, &descriptor, &config_descriptor)
    }

    /// Unpacks the layers that are not stored yet, from their blobs.
    fn unpack_all(&self, object: &str, manifest: &Manifest, config: &ImageConfig) -> Result<Vec<LayerRef>> {
        let layers = |source| Error::Layers {
            object: object.to_owned(),
            source,
        };
        let diff_ids = &config.rootfs.diff_ids;
        let found = self.layers.find(diff_ids).map_err(layers)?;
        let mut slots = Vec::with_capacity(diff_ids.len());
        for ((found, diff_id), layer) in found.into_iter().zip(diff_ids).zip(&manifest.layers) {
            slots.push(match found {
                Some(stored) => Slot::Stored(stored),
                None => {
                    let blob = self.content.blob(&layer.digest)?;
                    let compression = media_type::layer(&layer.media_type)
                        .ok_or_else(|| wrong(layer.digest.as_str(), "its media type is not supported"))?;
                    let received = self
                        .layers
                        .receive(compression, blob, Some(diff_id), &Limits::default());
                    Slot::Pending(received.map_err(|source| Error::Unpack {
                        digest: layer.digest.clone(),
                        source,
                    })?)
                }
            });
        }
        self.layers.commit(slots).map_err(layers)
    }

    fn name_all(
        &self,
        names: &[&str],
        target: &Descriptor,
        manifest: &Descriptor,
        config: &Descriptor,
    ) -> Result<Loaded> {
        let mut loaded = Loaded {
            names: Vec::new(),
            id: config.digest.clone(),
        };
        for text in names {
            let name = Reference::parse(text).map_err(|source| Error::Reference {
                text: text.chars().take(256).collect(),
                source,
            })?;
            self.bind(Some(&name), target, manifest, config)?;
            loaded.names.push(name.to_string());
        }
        if names.is_empty() {
            self.bind(None, target, manifest, config)?;
        }
        Ok(loaded)
    }
}

/// Files of a layout or unpacked archive.
struct Tree {
    root: OwnedFd,
}

impl Tree {
    fn blob_path(digest: &Digest) -> String {
        format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
    }

    fn exists(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// A regular file, symlinks (old docker archives share layers so) staying inside.
    fn open(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let shown: String = name.chars().take(200).collect();
        let file = rustix::fs::openat2(&self.root, name, flags, Mode::empty(), resolve)
            .map_err(|e| wrong(&shown, &format!("cannot be opened: {}", io::Error::from(e))))?;
        let file = File::from(file);
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(file),
            _ => Err(wrong(&shown, "is not a regular file")),
        }
    }

    /// A whole file of at most `max` bytes.
    fn read(&self, name: &str, max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open(name)?.take(max + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::ArchiveStream {
            operation: "read",
            source,
        })?;
        if bytes.len() as u64 > max {
            return Err(Error::TooLarge {
                object: name.to_owned(),
                max,
            });
        }
        Ok(bytes)
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = self.read(name, METADATA_MAX)?;
        serde_json::from_slice(&bytes).map_err(|e| wrong(name, &format!("does not parse: {e}")))
    }

    /// A small blob, verified.
    fn blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>> {
        let bytes = self.read(&Self::blob_path(&descriptor.digest), max)?;
        if bytes.len() as u64 != descriptor.size {
            return Err(Error::SizeMismatch {
                digest: descriptor.digest.clone(),
                expected: descriptor.size,
                received: bytes.len() as u64,
            });
        }
        if !descriptor.digest.matches(&bytes) {
            let received = Digest::of(&bytes);
            return Err(Error::DigestMismatch {
                expected: descriptor.digest.clone(),
                received,
            });
        }
        Ok(bytes)
    }
}

/// Stores a blob from a reader, verified.
pub(super) fn ingest(images: &Images, digest: &Digest, size: u64, from: &mut impl Read) -> Result<()> {
    if images.content.size(digest) == Some(size) {
        return Ok(());
    }
    let mut ingest = images.content.ingest(digest, size)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => ingest.write(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(Error::ArchiveStream {
                    operation: "read",
                    source,
                });
            }
        }
    }
    ingest.verify()?.commit()
}

/// How a tar stream is compressed, by its first bytes, and the stream with them put back.
pub(super) fn sniff<'r>(
    mut stream: impl Read + Send + 'r,
) -> io::Result<(Compression, impl Read + Send + 'r)> {
    let mut magic = Vec::with_capacity(4);
    stream.by_ref().take(4).read_to_end(&mut magic)?;
    let compression = match &*magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        // Skippable frames may come first (RFC 8878 section 3.1.2).
        [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
        _ => Compression::None,
    };
    Ok((compression, io::Cursor::new(magic).chain(stream)))
}

fn hash(file: &mut File) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.finish(), size)),
            n => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

fn parse_config(object: &str, bytes: &[u8], layers: usize) -> Result<ImageConfig> {
    ImageConfig::parse(bytes, layers).map_err(|source| Error::Config {
        object: object.to_owned(),
        source,
    })
}

fn check_count(count: usize) -> Result<()> {
    if count > IMAGES_MAX {
        return Err(wrong(
            "index",
            &format!("{count} images are over the limit of {IMAGES_MAX}"),
        ));
    }
    Ok(())
}

fn wrong(object: &str, problem: &str) -> Error {
    Error::Archive {
        object: object.chars().take(200).collect::<String>(),
        problem: problem.to_owned(),
    }
}
