//! Local image -> registry: blobs that are missing there, then the manifest, exactly as stored so that digests stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use crate::Images;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Descriptor, MANIFEST_BYTES_MAX, Manifest};
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::registry::{self, Actions, Notice, Repository, Sent};

const PROGRESS_EVERY: Duration = Duration::from_millis(100);

impl Images {
    /// Pushes the image named `reference` to its registry; returns the digest it has there. Blocks like
    /// [`Images::pull`]. Of an image that came out of an index this is the manifest of the platform that was pulled: the
    /// others are not here, and an index without them would lead nowhere.
    ///
    /// # Errors
    /// [`Error::NotFound`], or whatever the registry or the network does wrong.
    pub fn push(&self, reference: &Reference, progress: &dyn Progress) -> Result<Digest> {
        let _hold = self.content.hold()?;
        let record = self.find_record(&reference.canonical())?;
        let (manifest, _) = self.documents(&record)?;
        let bytes = self.content.read(&record.manifest.digest, MANIFEST_BYTES_MAX)?;
        let elsewhere = self.repositories_beside(reference)?;
        if record.target.digest != record.manifest.digest {
            progress.message(&format!(
                "{reference}: only {} of its platforms is here and is pushed, by itself",
                self.load_record(&record)?.platform
            ));
        }
        self.block_on(async {
            let failed = |e| match e {
                registry::Error::Store(own) => *own,
                e => Error::registry("push", reference)(e),
            };
            let host = reference.registry_host();
            let connecting = Repository::connect(
                &self.registry,
                host,
                reference.domain(),
                reference.path(),
                Actions::PullPush,
            );
            let mut repository = connecting.await.map_err(failed)?;
            let blobs = distinct(&manifest);
            let mount_from = |d: &Digest| elsewhere.get(d).map(String::as_str);
            let from: BTreeSet<&str> = blobs.iter().filter_map(|b| mount_from(&b.digest)).collect();
            for path in from {
                repository = repository.reading_also(path);
            }
            futures_util::stream::iter(blobs)
                .map(|blob| self.push_blob(&repository, blob, mount_from(&blob.digest), progress))
                .buffer_unordered(self.registry.parallel.max(1))
                .try_collect::<()>()
                .await
                .map_err(failed)?;
            let name = reference.tag_or_digest();
            repository
                .put_manifest(name, &record.manifest.media_type, &bytes)
                .await
                .map_err(failed)
        })?;
        let digest = record.manifest.digest.clone();
        let pinned = reference.at_digest(&digest);
        self.bind(Some(&pinned), &record.manifest, &record.manifest, &record.config)?;
        Ok(digest)
    }

    async fn push_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        mount_from: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<(), registry::Error> {
        let sent = Arc::new(AtomicU64::new(0));
        let show = || {
            let done = sent.load(Ordering::Relaxed);
            progress.layer(
                &blob.digest,
                Event::Transferred {
                    done,
                    total: blob.size,
                },
            );
        };
        let notice = |notice: Notice<'_>| {
            let Notice::Retrying(wait, cause) = notice;
            progress.layer(
                &blob.digest,
                Event::Retrying {
                    wait,
                    cause: &cause.whole(),
                },
            );
        };
        if self.content.size(&blob.digest) != Some(blob.size) {
            // Its layer came from a file or was built; the registry may still have the blob.
            if repository.has_blob(&blob.digest).await? {
                progress.layer(&blob.digest, Event::Exists);
                return Ok(());
            }
            return Err(registry::Error::Store(Box::new(Error::MissingBlob(
                blob.digest.clone(),
            ))));
        }
        let path = self.content.path(&blob.digest);
        let mut upload = std::pin::pin!(repository.upload(blob, &path, mount_from, &sent, &notice));
        let outcome = loop {
            match tokio::time::timeout(PROGRESS_EVERY, &mut upload).await {
                Ok(outcome) => break outcome?,
                Err(_) => show(),
            }
        };
        match outcome {
            Sent::Exists => progress.layer(&blob.digest, Event::Exists),
            Sent::Mounted => progress.layer(&blob.digest, Event::Mounted),
            Sent::Uploaded => show(),
        }
        progress.layer(&blob.digest, Event::Done);
        Ok(())
    }

    /// Which other repository of the same registry has a blob, as far as our own names tell.
    fn repositories_beside(&self, reference: &Reference) -> Result<BTreeMap<Digest, String>> {
        let mut found = BTreeMap::new();
        for record in self.records()? {
            let Some(other) = record.reference() else {
                continue;
            };
            // Only what has a digest is known to have been there.
            if other.digest().is_none()
                || other.domain() != reference.domain()
                || other.path() == reference.path()
            {
                continue;
            }
            if let Ok((manifest, _)) = self.documents(&record) {
                for blob in distinct(&manifest) {
                    found.insert(blob.digest.clone(), other.path().to_owned());
                }
            }
        }
        Ok(found)
    }
}

/// The config and each layer once.
fn distinct(manifest: &Manifest) -> Vec<&Descriptor> {
    let mut seen = BTreeSet::new();
    manifest
        .layers
        .iter()
        .chain([&manifest.config])
        .filter(|d| seen.insert(&d.digest))
        .collect()
}
