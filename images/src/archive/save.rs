//! Writing docker archives, OCI archives and OCI layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::import::json;
use super::{Format, SaveTo};
use crate::digest::{Digest, Hasher};
use crate::image::Record;
use crate::layer::Limits;
use crate::layer::stream::decoder;
use crate::layer::tar::{Kind, NewEntry, Time, Writer};
use crate::manifest::{CONFIG_BYTES_MAX, Descriptor, Index};
use crate::reference::Reference;
use crate::{Error, Images, Result, media_type};

impl Images {
    /// Writes images to an archive or layout. Each of `names` is a reference, which keeps its name in it, a repository, which
    /// means all of its tags, or an id.
    ///
    /// # Errors
    /// An unknown image, a damaged store, or a failed write.
    pub fn save(&self, names: &[&str], format: Format, to: SaveTo<'_>) -> Result<()> {
        let _hold = self.content.hold()?;
        let mut records = Vec::new();
        for name in names {
            let tags = self.tags_of(name)?;
            if !tags.is_empty() {
                records.extend(tags.into_iter().map(|record| (record, true)));
                continue;
            }
            let record = self.find_record(name)?;
            // An id gives no name to the archive, even if the image has one.
            let named = Digest::parse(name).is_err() && !record.config.digest.hex().starts_with(*name);
            records.push((record, named));
        }
        match (format, to) {
            (Format::DockerArchive, SaveTo::Stream(out)) => {
                self.save_docker(&records, &mut Archive::new(out))
            }
            (Format::OciArchive, SaveTo::Stream(out)) => self.save_layout(&records, &mut Archive::new(out)),
            (Format::OciDir, SaveTo::Directory(path)) => {
                self.save_layout(&records, &mut Directory::new(path)?)
            }
            (Format::OciDir, SaveTo::Stream(_)) => Err(Error::Archive {
                object: "oci-dir".to_owned(),
                problem: "needs a directory to write to".to_owned(),
            }),
            (_, SaveTo::Directory(path)) => Err(Error::Archive {
                object: path.display().to_string(),
                problem: "an archive is written to a file, not to a directory".to_owned(),
            }),
        }
    }

    /// Every tag of a repository that is given without one.
    fn tags_of(&self, name: &str) -> Result<Vec<Record>> {
        let has_tag = name
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains([':', '@']));
        let Ok(repository) = Reference::parse(name) else {
            return Ok(Vec::new());
        };
        if has_tag {
            return Ok(Vec::new());
        }
        let tags = self.tags(&repository)?;
        tags.iter()
            .map(|tag| self.find_record(&tag.canonical()))
            .collect()
    }

    fn save_docker(&self, records: &[(Record, bool)], out: &mut dyn Sink) -> Result<()> {
        let mut manifest: Vec<serde_json::Value> = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut written: BTreeSet<Digest> = BTreeSet::new();
        let mut listed: BTreeMap<Digest, usize> = BTreeMap::new();
        for (record, named) in records {
            let image = self.load_record(record)?;
            let id = &record.config.digest;
            for (layer, held) in image.manifest.layers.iter().zip(&image.held) {
                if written.insert(held.diff_id().clone()) {
                    let name = format!("{}.tar", held.diff_id().hex());
                    self.save_uncompressed(layer, held.diff_id(), held.record().tar_bytes, &name, out)?;
                }
            }
            if written.insert(id.clone()) {
                out.bytes(
                    &format!("{}.json", id.hex()),
                    &self.content.read(id, CONFIG_BYTES_MAX)?,
                )?;
            }
            let at = *listed.entry(id.clone()).or_insert_with(|| {
                manifest.push(json!({
                    "Config": format!("{}.json", id.hex()),
                    "RepoTags": [],
                    "Layers": image.held.iter().map(|l| format!("{}.tar", l.diff_id().hex())).collect::<Vec<_>>(),
                }));
                manifest.len() - 1
            });
            if let Some(name) = record.reference().filter(|_| *named)
                && let Some(tag) = name.tag()
            {
                let familiar = format!("{}:{tag}", name.familiar_repository());
                if let Some(tags) = manifest[at]["RepoTags"].as_array_mut() {
                    tags.push(familiar.into());
                }
                let top = image.held.last().map_or(id.hex(), |l| l.diff_id().hex());
                repositories
                    .entry(name.familiar_repository())
                    .or_default()
                    .insert(tag.to_owned(), top.to_owned());
            }
        }
        out.bytes("manifest.json", &json(&manifest)?)?;
        out.bytes("repositories", &json(&repositories)?)?;
        out.finish()
    }

    /// A layer's tar, checked on the way: what leaves is what the config names.
    fn save_uncompressed(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        size: u64,
        name: &str,
        out: &mut dyn Sink,
    ) -> Result<()> {
        let compression =
            media_type::layer(&layer.media_type).ok_or(Error::Unsupported("the media type of a layer"))?;
        let blob = self.content.blob(&layer.digest)?;
        let reader =
            decoder(compression, blob, &Limits::default()).map_err(|source| Error::ArchiveStream {
                operation: "decompress layer for",
                source,
            })?;
        let mut reader = Hashed {
            reader,
            hasher: Hasher::new(diff_id.algorithm()),
        };
        out.file(name, size, &mut reader)?;
        let received = reader.hasher.finish();
        if received != *diff_id {
            return Err(Error::DigestMismatch {
                expected: diff_id.clone(),
                received,
            });
        }
        Ok(())
    }

    fn save_layout(&self, records: &[(Record, bool)], out: &mut dyn Sink) -> Result<()> {
        out.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests: Vec::new(),
            annotations: None,
        };
        let mut written: BTreeSet<Digest> = BTreeSet::new();
        for (record, named) in records {
            let (manifest, config) = self.documents(record)?;
            for blob in manifest.layers.iter().chain([&record.config, &record.manifest]) {
                if written.insert(blob.digest.clone()) {
                    let file = self.content.blob(&blob.digest)?;
                    let name = format!("blobs/{}/{}", blob.digest.algorithm().name(), blob.digest.hex());
                    let mut reader = Hashed {
                        reader: file,
                        hasher: Hasher::new(blob.digest.algorithm()),
                    };
                    out.file(&name, blob.size, &mut reader)?;
                    let received = reader.hasher.finish();
                    if received != blob.digest {
                        return Err(Error::DigestMismatch {
                            expected: blob.digest.clone(),
                            received,
                        });
                    }
                }
            }
            let mut descriptor = record.manifest.clone();
            descriptor.platform = Some(config.platform());
            if let Some(name) = record.reference().filter(|r| *named && r.tag().is_some()) {
                let annotations = descriptor.annotations.get_or_insert_default();
                annotations.insert("io.containerd.image.name".to_owned(), name.canonical());
                annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.canonical());
            }
            index.manifests.push(descriptor);
        }
        out.bytes("index.json", &json(&index)?)?;
        out.finish()
    }
}

/// Where files of an archive go: a tar or a directory.
trait Sink {
    /// Writes a file of exactly `size` bytes.
    fn file(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<()>;

    fn finish(&mut self) -> Result<()>;

    fn bytes(&mut self, name: &str, mut bytes: &[u8]) -> Result<()> {
        self.file(name, bytes.len() as u64, &mut bytes)
    }
}

struct Archive<'o> {
    writer: Option<Writer<BufWriter<&'o mut dyn Write>>>,
}

impl<'o> Archive<'o> {
    fn new(out: &'o mut dyn Write) -> Self {
        Self {
            writer: Some(Writer::new(BufWriter::with_capacity(256 << 10, out))),
        }
    }
}

impl Sink for Archive<'_> {
    fn file(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<()> {
        let writer = self
            .writer
            .as_mut()
            .ok_or(Error::Unsupported("writing behind the end"))?;
        let entry = NewEntry {
            path: name.as_bytes(),
            link: b"",
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size,
            xattrs: &[],
        };
        let write = |source| Error::ArchiveStream {
            operation: "write",
            source,
        };
        writer.header(&entry).map_err(write)?;
        copy_exactly(name, size, data, |bytes| writer.data(bytes))?;
        writer.pad().map_err(write)
    }

    fn finish(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        writer
            .finish()
            .map(|_| ())
            .map_err(|source| Error::ArchiveStream {
                operation: "write",
                source,
            })
    }
}

struct Directory {
    path: PathBuf,
}

impl Directory {
    fn new(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(Error::file("create", path))?;
        if fs::read_dir(path)
            .map_err(Error::file("list", path))?
            .next()
            .is_some()
        {
            let problem = "the directory is not empty".to_owned();
            return Err(Error::Archive {
                object: path.display().to_string(),
                problem,
            });
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Sink for Directory {
    fn file(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        }
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::file("create", &path))?;
        copy_exactly(name, size, data, |bytes| file.write_all(bytes))
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

fn copy_exactly(
    name: &str,
    size: u64,
    data: &mut dyn Read,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut left = size;
    loop {
        let n = match data.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(|source| Error::ArchiveStream {
                operation: "read a blob for",
                source,
            })?,
        };
        if n as u64 > left || (n == 0 && left > 0) {
            let problem = format!("has not the {size} bytes the store has on record");
            return Err(Error::Archive {
                object: name.to_owned(),
                problem,
            });
        }
        if n == 0 {
            return Ok(());
        }
        write(&buffer[..n]).map_err(|source| Error::ArchiveStream {
            operation: "write",
            source,
        })?;
        left -= n as u64;
    }
}

struct Hashed<R> {
    reader: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(out)?;
        self.hasher.update(&out[..n]);
        Ok(n)
    }
}
