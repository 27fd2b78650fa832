//! Where a pull gets its content: the mirrors in order, then the registry. A source that fails is passed over, and what a
//! later one serves continues where the earlier one stopped.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::registry_error;
use crate::error::Result;
use crate::manifest::Descriptor;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{self, Actions, Config, Document, Notice, Repository};

pub(crate) struct Sources<'a> {
    config: &'a Config,
    progress: &'a dyn Progress,
    path: &'a str,
    object: String,
    sources: Vec<Source<'a>>,
}

struct Source<'a> {
    host: String,
    /// A mirror that could not be spoken to: asked no more, so that it does not hold up every blob.
    is_dead: AtomicBool,
    /// Whose credentials it may see. A mirror gets those filed under its own name, never the registry's.
    domain: &'a str,
    repository: OnceCell<Repository>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(config: &'a Config, reference: &'a Reference, progress: &'a dyn Progress) -> Self {
        let hosts = registry::candidates(config, reference.domain(), reference.registry_host());
        let last = hosts.len() - 1;
        let sources = hosts
            .into_iter()
            .enumerate()
            .map(|(i, host)| Source {
                domain: if i == last { reference.domain() } else { "" },
                host,
                is_dead: AtomicBool::new(false),
                repository: OnceCell::new(),
            })
            .collect();
        Self {
            config,
            progress,
            path: reference.path(),
            object: reference.to_string(),
            sources,
        }
    }

    pub(super) async fn manifest(&self, tag_or_digest: &str) -> Result<Document> {
        self.first(async |repository| repository.manifest(tag_or_digest).await)
            .await
    }

    /// The same sources, of which errors tell as `object`.
    pub(crate) fn of(self, object: String) -> Self {
        Self { object, ..self }
    }

    pub(crate) async fn tags(&self) -> Result<Vec<String>> {
        self.first(async |repository| repository.tags().await).await
    }

    /// Gives every byte of the blob to `sink`, once and in order.
    pub(super) async fn download(
        &self,
        descriptor: &Descriptor,
        mut sink: impl AsyncFnMut(Bytes) -> Result<()>,
        notice: &dyn Fn(Notice<'_>),
    ) -> Result<()> {
        let mut offset = 0;
        self.first(async |repository| {
            repository
                .download(descriptor, &mut offset, &mut sink, notice)
                .await
        })
        .await
    }

    /// The first source's success, or the last one's error.
    async fn first<T>(
        &self,
        mut attempt: impl AsyncFnMut(&Repository) -> Result<T, registry::Error>,
    ) -> Result<T> {
        let last = self.sources.len() - 1;
        for (i, source) in self.sources.iter().enumerate() {
            if source.is_dead.load(Ordering::Relaxed) {
                continue;
            }
            let outcome = match self.repository(source).await {
                Ok(repository) => attempt(repository).await,
                Err(e) => Err(e),
            };
            match outcome {
                Ok(done) => return Ok(done),
                // The local side failed; another source changes nothing.
                Err(e @ registry::Error::Store(_)) => return Err(registry_error(&self.object)(e)),
                Err(e) if i == last => return Err(registry_error(&self.object)(e)),
                Err(e) => {
                    source.is_dead.store(e.is_silence(), Ordering::Relaxed);
                    let why = e.whole();
                    self.progress
                        .message(&format!("mirror {} failed, trying the next: {why}", source.host));
                }
            }
        }
        unreachable!("the registry itself is always the last source")
    }

    async fn repository(&self, source: &'a Source<'a>) -> Result<&Repository, registry::Error> {
        let host = source.host.as_str();
        let bare = host
            .rsplit_once("://")
            .map_or(host, |(_, rest)| rest)
            .trim_end_matches('/');
        let domain = if source.domain.is_empty() {
            bare
        } else {
            source.domain
        };
        source
            .repository
            .get_or_try_init(|| Repository::connect(self.config, host, domain, self.path, Actions::Pull))
            .await
    }
}
