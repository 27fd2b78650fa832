//! Removal: names first, then what no name, container or running pull needs.
//!
//! A transfer holds `ROOT/gc.lock` shared while it relies on blobs that no record leads to yet; collecting takes it
//! exclusively and does without if it cannot have it soon. A layer someone has looked up is held by its own lock besides.
//! An image that a container uses never loses its last record.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Images;
use crate::config::ImageConfig;
use crate::content::{Lock, atomic};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Record;
use crate::layer;
use crate::reference::Reference;
use crate::snapshot::chain_ids;

/// How long a removal waits for a transfer that relies on the store before it leaves the space to the next one.
const EXCLUDE_TRIES: u32 = 10;
const EXCLUDE_WAIT: Duration = Duration::from_millis(20);

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
    /// A pull or push was running, so blobs and layers stay until the next removal or prune.
    pub is_deferred: bool,
}

/// What the records lead to.
#[derive(Default)]
pub(crate) struct Live {
    pub(crate) blobs: BTreeSet<Digest>,
    /// diffIDs and chainIDs: a layer is stored under the one or the other.
    pub(crate) layers: BTreeSet<Digest>,
}

impl Images {
    /// Removes a name, or with the last name the image (`berth rmi`). `uses` is asked while the store is locked.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InUse`], [`Error::SeveralNames`].
    pub fn remove(&self, name: &str, force: bool, uses: &dyn Fn() -> Vec<Use>) -> Result<Removed> {
        let lock = self.exclude()?;
        let record = self.find_record(name)?;
        let siblings: Vec<Record> = self
            .records()?
            .into_iter()
            .filter(|r| r.config.digest == record.config.digest)
            .collect();
        let by_name = Reference::parse(name).is_ok_and(|r| crate::image::record_name(&r) == record.name);
        let doomed = doomed(&siblings, &record, by_name);
        let is_last = doomed.len() == siblings.len();
        let repositories: BTreeSet<String> = siblings
            .iter()
            .filter_map(Record::reference)
            .map(|r| r.repository())
            .collect();
        if !by_name && repositories.len() > 1 && !force {
            return Err(Error::SeveralNames(name.to_owned()));
        }
        let users: Vec<Use> = if is_last { uses() } else { Vec::new() };
        let user = users
            .iter()
            .filter(|u| u.image == record.config.digest)
            .max_by_key(|u| u.is_running);
        if let Some(user) = user
            && (!force || (user.is_running && !by_name))
        {
            return Err(Error::InUse {
                image: name.to_owned(),
                container: user.container.clone(),
            });
        }
        if user.is_some() {
            self.keep_bare(&record)?;
        }
        let mut removed = Removed::default();
        for gone in &doomed {
            // A dangling image in use stays dangling.
            if user.is_some() && gone.name == record.manifest.digest.as_str() {
                continue;
            }
            self.remove_record(&gone.name)?;
            if let Some(reference) = gone.reference() {
                removed.untagged.push(reference.to_string());
            }
        }
        if is_last && user.is_none() {
            removed.deleted.push(record.config.digest.clone());
        }
        self.collect(lock.as_ref(), &mut removed)?;
        Ok(removed)
    }

    /// Removes images without a tag, or with `all` those no container uses, of both kinds only those that `wanted` says; then
    /// blobs and layers nothing needs.
    ///
    /// # Errors
    /// A damaged store or failed removal.
    pub fn prune(
        &self,
        all: bool,
        wanted: &dyn Fn(&ImageConfig) -> bool,
        uses: &dyn Fn() -> Vec<Use>,
    ) -> Result<Removed> {
        let lock = self.exclude()?;
        let used: BTreeSet<Digest> = uses().into_iter().map(|u| u.image).collect();
        let records = self.records()?;
        let tagged: BTreeSet<&Digest> = records
            .iter()
            .filter(|r| r.is_tagged())
            .map(|r| &r.config.digest)
            .collect();
        let mut removed = Removed::default();
        for record in &records {
            let id = &record.config.digest;
            if used.contains(id) || (!all && tagged.contains(id)) {
                continue;
            }
            match self.documents(record) {
                Ok((_, config)) if !wanted(&config) => continue,
                // A record of something absent says nothing and leads nowhere.
                Ok(_) | Err(Error::MissingBlob(_)) => {}
                Err(e) => return Err(e),
            }
            self.remove_record(&record.name)?;
            if let Some(reference) = record.reference() {
                removed.untagged.push(reference.to_string());
            }
            if !removed.deleted.contains(id) {
                removed.deleted.push(id.clone());
            }
        }
        self.collect(lock.as_ref(), &mut removed)?;
        Ok(removed)
    }

    fn exclude(&self) -> Result<Option<Lock>> {
        for _ in 0..EXCLUDE_TRIES {
            if let Some(lock) = self.content.try_exclude()? {
                return Ok(Some(lock));
            }
            std::thread::sleep(EXCLUDE_WAIT);
        }
        Ok(None)
    }

    /// Removes every blob and layer that no record leads to, and what killed transfers left.
    fn collect(&self, lock: Option<&Lock>, removed: &mut Removed) -> Result<()> {
        if lock.is_none() {
            removed.is_deferred = true;
            return Ok(());
        }
        // A record that cannot be read might lead anywhere: then nothing is collected.
        let records = self.records()?;
        let live = self.live(records.iter())?;
        for layer in self.layers.list().map_err(self.layers_error())? {
            if live.layers.contains(layer.key()) {
                continue;
            }
            let (key, size) = (layer.key().clone(), layer.record().size + layer.disk_bytes());
            // Our own look at it is a hold too.
            drop(layer);
            match self.layers.remove(&key, || true) {
                Ok(true) => {
                    removed.reclaimed += size;
                    removed.deleted.push(key);
                }
                Ok(false) | Err(layer::Error::Busy(_) | layer::Error::Missing(_)) => {}
                Err(e) => return Err(self.layers_error()(e)),
            }
        }
        for (digest, _) in self.content.list()? {
            if !live.blobs.contains(&digest) {
                removed.reclaimed += self.content.remove(&digest)?;
            }
        }
        removed.reclaimed += self.content.sweep()?;
        self.layers.sweep().map_err(self.layers_error())?;
        // Who writes a record holds the store, so these are nobody's.
        atomic::sweep(&self.root.join("images"))
    }

    pub(crate) fn live<'a>(&self, records: impl Iterator<Item = &'a Record>) -> Result<Live> {
        let mut live = Live::default();
        for record in records {
            live.blobs.extend([
                record.target.digest.clone(),
                record.manifest.digest.clone(),
                record.config.digest.clone(),
            ]);
            let (manifest, config) = match self.documents(record) {
                Ok(documents) => documents,
                // A record of something absent (a removal or a load that was killed) leads nowhere.
                Err(Error::MissingBlob(_)) => continue,
                Err(e) => return Err(e),
            };
            live.blobs.extend(manifest.layers.into_iter().map(|l| l.digest));
            live.layers.extend(chain_ids(&config.rootfs.diff_ids));
            live.layers.extend(config.rootfs.diff_ids);
        }
        Ok(live)
    }

    pub(crate) fn layers_error(&self) -> impl FnOnce(layer::Error) -> Error {
        let object = self.root.display().to_string();
        move |source| Error::Layers { object, source }
    }
}

/// The records that go: by id all of them; by name that one, and with a repository's last tag its digests too.
fn doomed(siblings: &[Record], record: &Record, by_name: bool) -> Vec<Record> {
    if !by_name {
        return siblings.to_vec();
    }
    let repository = |r: &Record| r.reference().map(|r| r.repository());
    let own = repository(record);
    let other_tags = siblings
        .iter()
        .any(|r| r.name != record.name && r.is_tagged() && repository(r) == own);
    let goes = |r: &&Record| {
        r.name == record.name || (!other_tags && !r.is_tagged() && repository(r) == own && record.is_tagged())
    };
    siblings.iter().filter(goes).cloned().collect()
}
