//! reference -> manifest for the platform -> config -> missing layers, each digested, stored and unpacked as it arrives.
//!
//! One thread runs every connection; a layer's bytes go to its ingest file and, through a bounded channel, to the thread that
//! unpacks it. The unpacker sees the end of the stream only after the blob's digest was found right, and nothing is committed
//! before, so bytes that turn out wrong never become a layer.

mod layer;
mod sources;

use std::io;

use berth_sys::signals::Held;
use futures_util::{StreamExt, TryStreamExt};

use crate::Images;
use crate::config::ImageConfig;
use crate::content::Lock;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::{Image, Record, record_name};
use crate::manifest::{self, CONFIG_BYTES_MAX, Descriptor, Manifest, Parsed};
use crate::platform::Platform;
use crate::progress::{Event, Progress, Quiet};
use crate::reference::Reference;
use crate::registry;
use crate::snapshot::Slot;
use layer::Wanted;
pub(crate) use sources::Sources;

/// How often a waiting pull looks whether another has finished with a blob.
const LOCK_POLL: std::time::Duration = std::time::Duration::from_millis(50);

/// What a user or a service manager ends a transfer with.
const INTERRUPTS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
/// How long a signal may go unnoticed.
const INTERRUPT_POLL: std::time::Duration = std::time::Duration::from_millis(50);

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Always (`berth pull`): the name may mean something newer.
    #[default]
    Always,
    /// Only if the image is not here (`berth run`).
    Missing,
    /// Never; fail if it is not here.
    Never,
}

/// How to pull.
#[derive(Clone, Copy)]
pub struct PullOptions<'a> {
    /// Which platform's image; `None` means this host's.
    pub platform: Option<&'a Platform>,
    /// When to ask the registry.
    pub policy: Policy,
    /// Who hears of it.
    pub progress: &'a dyn Progress,
}

impl Default for PullOptions<'_> {
    fn default() -> Self {
        Self {
            platform: None,
            policy: Policy::Always,
            progress: &Quiet,
        }
    }
}

/// A chosen image: its documents and where they are.
struct Chosen {
    target: Descriptor,
    manifest: Descriptor,
    config: Descriptor,
    layers: Vec<Descriptor>,
    diff_ids: Vec<Digest>,
}

impl Images {
    /// Pulls an image. Blocks; runs its own small tokio runtime and ends every thread of it before returning. Meanwhile SIGINT,
    /// SIGTERM and SIGHUP end the transfer ([`Error::Interrupted`]) unless they are ignored.
    ///
    /// # Errors
    /// Whatever the registry, the network, the content or the disk does wrong; nothing unverified is left in the store.
    pub fn pull(&self, reference: &Reference, options: PullOptions<'_>) -> Result<Image> {
        if options.policy != Policy::Always {
            let local = self.resolve(&reference.canonical());
            match local {
                Ok(image) if options.platform.is_none_or(|p| p.rank(&image.platform).is_some()) => {
                    return Ok(image);
                }
                Err(e) if options.policy == Policy::Never => {
                    return Err(if matches!(e, Error::NotFound(_)) {
                        Error::NotPulled(reference.to_string())
                    } else {
                        e
                    });
                }
                Ok(_) if options.policy == Policy::Never => {
                    return Err(Error::NotPulled(reference.to_string()));
                }
                // Absent, of another platform, or damaged: fetching repairs all three.
                _ => {}
            }
        }
        self.content.sweep()?;
        let layers = |source| Error::Layers {
            object: reference.to_string(),
            source,
        };
        self.layers.sweep().map_err(layers)?;
        let _hold = self.content.hold()?;
        let chosen = self.block_on(self.fetch(reference, options))?;
        let name = if reference.digest().is_some() {
            reference.at_digest(&chosen.target.digest)
        } else {
            self.bind(
                Some(&reference.at_digest(&chosen.target.digest)),
                &chosen.target,
                &chosen.manifest,
                &chosen.config,
            )?;
            reference.clone()
        };
        self.bind(Some(&name), &chosen.target, &chosen.manifest, &chosen.config)?;
        // Not looked up by its name, which somebody may have removed by now; `_hold` keeps what it meant.
        self.image(&Record {
            name: record_name(reference),
            target: chosen.target,
            manifest: chosen.manifest,
            config: chosen.config,
        })
    }

    /// Runs a transfer on a runtime of its own. Dropping the runtime waits for its blocking threads, so the caller may fork
    /// afterwards. SIGINT, SIGTERM and SIGHUP end the transfer instead of the process, so that what it made is removed.
    pub(crate) fn block_on<T>(&self, transfer: impl Future<Output = Result<T>>) -> Result<T> {
        // Before the runtime starts threads, which inherit the mask.
        let held = berth_sys::signals::hold(&INTERRUPTS).map_err(Error::Runtime)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        runtime.block_on(async {
            tokio::select! {
                outcome = transfer => outcome,
                signal = interrupted(&held) => Err(signal.map_or_else(Error::Runtime, Error::Interrupted)),
            }
        })
    }

    async fn fetch(&self, reference: &Reference, options: PullOptions<'_>) -> Result<Chosen> {
        let sources = Sources::new(&self.registry, reference, options.progress);
        let chosen = self.choose(&sources, reference, options).await?;
        let _locks = self.lock_missing(&chosen, options.progress).await?;
        let stored = |source| Error::Layers {
            object: reference.to_string(),
            source,
        };
        let found = self.layers.find(&chosen.diff_ids).map_err(stored)?;

        let wanted: Vec<Wanted<'_>> = Wanted::list(&chosen.layers, &chosen.diff_ids, &found);
        let received: Vec<_> = futures_util::stream::iter(wanted)
            .map(|wanted| layer::fetch(self, &sources, wanted, options.progress))
            .buffer_unordered(self.registry.parallel.max(1))
            .try_collect()
            .await?;

        let mut slots: Vec<Option<Slot>> = found.into_iter().map(|f| f.map(Slot::Stored)).collect();
        for (index, pending) in received.into_iter().flatten() {
            slots[index] = Some(Slot::Pending(pending));
        }
        let slots: Vec<Slot> = slots.into_iter().flatten().collect();
        let store = self.layers.clone();
        let committed = tokio::task::spawn_blocking(move || store.commit(slots)).await;
        // Held until the record is written: `_hold` in `pull` keeps the collector away from then on.
        let _refs = committed
            .map_err(|e| Error::Runtime(io::Error::other(e)))?
            .map_err(stored)?;
        for descriptor in &chosen.layers {
            options.progress.layer(&descriptor.digest, Event::Done);
        }
        Ok(chosen)
    }

    /// From a name to the manifest and config of one image, both stored.
    async fn choose(
        &self,
        sources: &Sources<'_>,
        reference: &Reference,
        options: PullOptions<'_>,
    ) -> Result<Chosen> {
        let platform = options.platform.cloned().unwrap_or_else(Platform::host);
        let object = reference.to_string();
        let document = sources.manifest(reference.tag_or_digest()).await?;
        let parse = |bytes: &[u8], served: &str| {
            manifest::parse(bytes, served).map_err(|source| Error::Manifest {
                object: object.clone(),
                source,
            })
        };
        let describe = |parsed: &Parsed, digest: &Digest, served: &str, bytes: &[u8]| {
            Descriptor::new(parsed.media_type(served), digest.clone(), bytes.len() as u64)
        };
        let parsed = parse(&document.bytes, &document.media_type)?;
        let target = describe(&parsed, &document.digest, &document.media_type, &document.bytes);
        let (descriptor, bytes, parsed) = match parsed {
            Parsed::Manifest(m) => (target.clone(), document.bytes, m),
            Parsed::Index(index) => {
                self.content.put_as(&document.digest, &document.bytes)?;
                let child = index.choose(&platform).ok_or_else(|| Error::NoPlatform {
                    object: object.clone(),
                    platform: platform.to_string(),
                    offers: index.offers(),
                })?;
                let served = sources.manifest(child.digest.as_str()).await?;
                if served.bytes.len() as u64 != child.size {
                    return Err(Error::SizeMismatch {
                        digest: child.digest.clone(),
                        expected: child.size,
                        received: served.bytes.len() as u64,
                    });
                }
                match parse(&served.bytes, &child.media_type)? {
                    Parsed::Manifest(m) => (
                        Descriptor::new(&child.media_type, child.digest.clone(), child.size),
                        served.bytes,
                        m,
                    ),
                    Parsed::Index(_) => {
                        let source = manifest::Error::MediaType(child.media_type.clone());
                        return Err(Error::Manifest { object, source });
                    }
                }
            }
        };
        parsed.check().map_err(|source| Error::Manifest {
            object: object.clone(),
            source,
        })?;
        let config = self.fetch_config(sources, &parsed, &object).await?;
        let runs_on = config.platform();
        if platform.rank(&runs_on).is_none() {
            // An index has been asked already; a lone manifest says only here what it runs on.
            if options.platform.is_some() {
                let (platform, offers) = (platform.to_string(), runs_on.to_string());
                return Err(Error::NoPlatform {
                    object,
                    platform,
                    offers,
                });
            }
            options.progress.message(&format!(
                "warning: {object} is for {runs_on}, this host is {platform}"
            ));
        }
        self.content.put_as(&descriptor.digest, &bytes)?;
        Ok(Chosen {
            target,
            manifest: descriptor,
            config: Descriptor {
                urls: None,
                annotations: None,
                ..parsed.config
            },
            layers: parsed.layers,
            diff_ids: config.rootfs.diff_ids,
        })
    }

    async fn fetch_config(
        &self,
        sources: &Sources<'_>,
        manifest: &Manifest,
        object: &str,
    ) -> Result<ImageConfig> {
        let descriptor = &manifest.config;
        let bytes = if self.content.size(&descriptor.digest) == Some(descriptor.size) {
            self.content.read(&descriptor.digest, CONFIG_BYTES_MAX)?
        } else {
            let mut bytes = Vec::new();
            let sink = async |chunk: bytes::Bytes| {
                bytes.extend_from_slice(&chunk);
                Ok(())
            };
            sources.download(descriptor, sink, &|_| {}).await?;
            if !descriptor.digest.matches(&bytes) {
                let received = Digest::of(&bytes);
                return Err(Error::DigestMismatch {
                    expected: descriptor.digest.clone(),
                    received,
                });
            }
            self.content.put_as(&descriptor.digest, &bytes)?;
            bytes
        };
        ImageConfig::parse(&bytes, manifest.layers.len()).map_err(|source| Error::Config {
            object: object.to_owned(),
            source,
        })
    }

    /// Becomes the one that fetches every layer that is missing, waiting for others who fetch some of them. Taken in the
    /// order of the digests by everybody, so two pulls cannot wait for each other.
    async fn lock_missing(&self, chosen: &Chosen, progress: &dyn Progress) -> Result<Vec<Lock>> {
        let stored = |source| Error::Layers {
            object: chosen.target.digest.to_string(),
            source,
        };
        let mut locks = Vec::new();
        let found = self.layers.find(&chosen.diff_ids).map_err(stored)?;
        let missing = chosen
            .layers
            .iter()
            .zip(&found)
            .filter(|(d, f)| f.is_none() || !self.has(d));
        let mut digests: Vec<&Digest> = missing.map(|(d, _)| &d.digest).collect();
        digests.sort();
        digests.dedup();
        for digest in digests {
            let mut is_told = false;
            loop {
                if let Some(lock) = self.content.try_lock(digest)? {
                    locks.push(lock);
                    break;
                }
                if !is_told {
                    progress.layer(digest, Event::Waiting);
                    is_told = true;
                }
                tokio::time::sleep(LOCK_POLL).await;
            }
        }
        Ok(locks)
    }

    /// Whether the blob is here.
    pub(crate) fn has(&self, descriptor: &Descriptor) -> bool {
        self.content.size(&descriptor.digest) == Some(descriptor.size)
    }
}

/// The first of the held signals that comes. Looked for now and then: tokio's own signal handling could not be taken back before
/// the caller forks.
async fn interrupted(held: &Held) -> io::Result<i32> {
    loop {
        if let Some(signal) = berth_sys::signals::next(held)? {
            return Ok(signal);
        }
        tokio::time::sleep(INTERRUPT_POLL).await;
    }
}

/// Names the operation around a registry's error, but lets the store's own errors through as they are.
fn registry_error(object: impl ToString) -> impl FnOnce(registry::Error) -> Error {
    move |e| match e {
        registry::Error::Store(own) => *own,
        other => Error::registry("pull", object)(other),
    }
}
