//! One layer on its way: network -> ingest file and unpacker at once, a thread each -> blob committed, directory pending.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::sources::Sources;
use crate::Images;
use crate::content::Ingest;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::{Compression, Limits};
use crate::manifest::Descriptor;
use crate::media_type;
use crate::progress::{Event, Progress};
use crate::registry::Notice;
use crate::snapshot::{LayerRef, Pending};

/// Chunks between the network and each thread behind it. The HTTP client reads at most some 400 KiB at a time, so three
/// layers hold at most 5 MiB here.
const CHANNEL_CHUNKS: usize = 4;
/// How much is still fetched after the unpacker gave up, only to find whether the bytes were corrupt, which is the better
/// thing to tell.
const DIAGNOSIS_BYTES_MAX: u64 = 64 << 20;

/// A blob to fetch or to unpack, and where in the image its content goes.
pub(super) struct Wanted<'a> {
    descriptor: &'a Descriptor,
    /// Positions in the image whose directory is missing; a layer may occur more than once.
    positions: Vec<(usize, &'a Digest)>,
}

impl<'a> Wanted<'a> {
    /// One entry per distinct blob, the largest first: the one that takes longest must not begin last. A blob is wanted also
    /// if its layer is stored, since a push needs it.
    pub(super) fn list(
        layers: &'a [Descriptor],
        diff_ids: &'a [Digest],
        found: &[Option<LayerRef>],
    ) -> Vec<Self> {
        let mut list: Vec<Self> = Vec::with_capacity(layers.len());
        for (i, ((descriptor, diff_id), found)) in layers.iter().zip(diff_ids).zip(found).enumerate() {
            let at = list.iter().position(|w| w.descriptor.digest == descriptor.digest);
            let at = at.unwrap_or_else(|| {
                list.push(Self {
                    descriptor,
                    positions: Vec::new(),
                });
                list.len() - 1
            });
            if found.is_none() {
                list[at].positions.push((i, diff_id));
            }
        }
        list.sort_by_key(|wanted| std::cmp::Reverse(wanted.descriptor.size));
        list
    }
}

/// Makes the blob present and unpacks it for each position that lacks it.
pub(super) async fn fetch(
    images: &Images,
    sources: &Sources<'_>,
    wanted: Wanted<'_>,
    progress: &dyn Progress,
) -> Result<Vec<(usize, Pending)>> {
    let Wanted {
        descriptor,
        positions,
    } = wanted;
    let digest = &descriptor.digest;
    let mut positions = positions.into_iter();
    let mut received = Vec::new();
    if images.has(descriptor) {
        progress.layer(digest, Event::Exists);
    } else {
        let first = positions.next();
        let pending = stream(images, sources, descriptor, first.map(|(_, d)| d), progress).await?;
        received.extend(first.zip(pending).map(|((i, _), p)| (i, p)));
    }
    for (i, diff_id) in positions {
        let blob = images.content.blob(digest)?;
        received.push((i, unpack(images, descriptor, diff_id, blob)?.wait().await?));
    }
    Ok(received)
}

/// Downloads into the store, unpacking on the way if `diff_id` is given.
async fn stream(
    images: &Images,
    sources: &Sources<'_>,
    descriptor: &Descriptor,
    diff_id: Option<&Digest>,
    progress: &dyn Progress,
) -> Result<Option<Pending>> {
    let digest = &descriptor.digest;
    let (to_store, storing) = store(images, descriptor)?;
    let (to_unpacker, unpacking) = match diff_id {
        None => (None, None),
        Some(diff_id) => {
            let (sender, receiver) = mpsc::channel(CHANNEL_CHUNKS);
            let reader = Chunks {
                receiver,
                current: Bytes::new(),
                is_ended: false,
            };
            (Some(sender), Some(unpack(images, descriptor, diff_id, reader)?))
        }
    };
    let mut arriving = Arriving {
        digest,
        progress,
        done: 0,
        total: descriptor.size,
        to_store,
        to_unpacker,
        unpacks: diff_id.is_some(),
    };
    arriving.show();
    let notice = |notice: Notice<'_>| {
        let Notice::Retrying(wait, cause) = notice;
        progress.layer(
            digest,
            Event::Retrying {
                wait,
                cause: &cause.whole(),
            },
        );
    };
    let downloaded = sources
        .download(descriptor, async |chunk| arriving.take(chunk).await, &notice)
        .await;
    let Arriving {
        to_store,
        to_unpacker,
        ..
    } = arriving;
    drop(to_store);
    let verified = match (storing.wait().await, downloaded) {
        // Whatever else went wrong followed from it.
        (Err(e), _) => Err(e),
        (Ok(_), Err(e)) => Err(e),
        (Ok(ingest), Ok(())) => ingest.verify(),
    };
    let verified = match verified {
        Ok(verified) => verified,
        Err(e) => {
            // Without the end marker the unpacker fails, and its private directory goes.
            drop(to_unpacker);
            let unpacked = match unpacking {
                Some(unpacking) => unpacking.wait().await.map(drop),
                None => Ok(()),
            };
            return Err(match (e, unpacked) {
                (Error::Stopped, Err(cause)) => cause,
                (e, _) => e,
            });
        }
    };
    if let Some(sender) = to_unpacker {
        // A receiver that is gone has an error to tell below.
        let _ = sender.send(Chunk::End).await;
    }
    progress.layer(digest, Event::Verified);
    let committing = tokio::task::spawn_blocking(move || verified.commit());
    let pending = match unpacking {
        Some(unpacking) => Some(unpacking.wait().await),
        None => None,
    };
    committing
        .await
        .map_err(|e| Error::Runtime(io::Error::other(e)))??;
    pending.transpose()
}

/// The bytes of one blob as they come: each chunk to the thread that stores it and to the one that unpacks it.
struct Arriving<'a> {
    digest: &'a Digest,
    progress: &'a dyn Progress,
    done: u64,
    total: u64,
    to_store: mpsc::Sender<Bytes>,
    /// `None` once the unpacker gave up.
    to_unpacker: Option<mpsc::Sender<Chunk>>,
    unpacks: bool,
}

impl Arriving<'_> {
    fn show(&self) {
        let (done, total) = (self.done, self.total);
        self.progress
            .layer(self.digest, Event::Transferred { done, total });
    }

    async fn take(&mut self, chunk: Bytes) -> Result<()> {
        self.done += chunk.len() as u64;
        self.show();
        self.to_store
            .send(chunk.clone())
            .await
            .map_err(|_| Error::Stopped)?;
        if let Some(open) = &self.to_unpacker
            && open.send(Chunk::Bytes(chunk)).await.is_err()
        {
            self.to_unpacker = None;
        }
        if self.unpacks
            && self.to_unpacker.is_none()
            && self.total.saturating_sub(self.done) > DIAGNOSIS_BYTES_MAX
        {
            return Err(Error::Stopped);
        }
        Ok(())
    }
}

/// The thread that hashes a blob and writes it to its ingest file: the one that runs the connections must not wait for a disk.
struct Storing(tokio::task::JoinHandle<Result<Ingest>>);

impl Storing {
    async fn wait(self) -> Result<Ingest> {
        self.0.await.map_err(|e| Error::Runtime(io::Error::other(e)))?
    }
}

fn store(images: &Images, descriptor: &Descriptor) -> Result<(mpsc::Sender<Bytes>, Storing)> {
    let mut ingest = images.content.ingest(&descriptor.digest, descriptor.size)?;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(CHANNEL_CHUNKS);
    let task = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = receiver.blocking_recv() {
            ingest.write(&chunk)?;
        }
        Ok(ingest)
    });
    Ok((sender, Storing(task)))
}

enum Chunk {
    Bytes(Bytes),
    /// The blob is whole and its digest right.
    End,
}

/// The unpacker's view of a download. A channel that closes without [`Chunk::End`] is an error, never an end of file: a
/// truncated layer must not pass for a short one.
struct Chunks {
    receiver: mpsc::Receiver<Chunk>,
    current: Bytes,
    is_ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.is_ended || buffer.is_empty() {
                return Ok(0);
            }
            match self.receiver.blocking_recv() {
                Some(Chunk::Bytes(bytes)) => self.current = bytes,
                Some(Chunk::End) => self.is_ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the download stopped",
                    ));
                }
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

struct Unpacking {
    digest: Digest,
    task: tokio::task::JoinHandle<Result<Pending, crate::layer::Error>>,
}

impl Unpacking {
    async fn wait(self) -> Result<Pending> {
        let unpacked = self.task.await.map_err(|e| Error::Runtime(io::Error::other(e)))?;
        unpacked.map_err(|source| Error::Unpack {
            digest: self.digest,
            source,
        })
    }
}

fn unpack(
    images: &Images,
    descriptor: &Descriptor,
    diff_id: &Digest,
    reader: impl Read + Send + 'static,
) -> Result<Unpacking> {
    let compression = compression(descriptor)?;
    let store = images.layers.clone();
    let diff_id = diff_id.clone();
    let task = tokio::task::spawn_blocking(move || {
        store.receive(compression, reader, Some(&diff_id), &Limits::default())
    });
    Ok(Unpacking {
        digest: descriptor.digest.clone(),
        task,
    })
}

fn compression(descriptor: &Descriptor) -> Result<Compression> {
    media_type::layer(&descriptor.media_type).ok_or_else(|| Error::Manifest {
        object: descriptor.digest.to_string(),
        source: crate::manifest::Error::LayerMediaType {
            digest: descriptor.digest.clone(),
            media_type: descriptor.media_type.clone(),
        },
    })
}
