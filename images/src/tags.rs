//! Which tags a repository has: here, and on its registry.

use crate::Images;
use crate::error::{Error, Result};
use crate::image::Record;
use crate::progress::Progress;
use crate::pull::Sources;
use crate::reference::Reference;

impl Images {
    /// Every tag of the repository of `reference` that is here.
    ///
    /// # Errors
    /// A damaged store.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<Reference>> {
        let tagged = self.records()?.into_iter().filter(Record::is_tagged);
        let named = tagged.filter_map(|record| record.reference());
        Ok(named
            .filter(|other| other.repository() == reference.repository())
            .collect())
    }

    /// Every tag of the repository of `reference` that its registry lists, mirrors being asked first as for a pull. Blocks as
    /// [`Images::pull`] does.
    ///
    /// # Errors
    /// Whatever the registry or the network does wrong; a tag that cannot be one.
    pub fn remote_tags(&self, reference: &Reference, progress: &dyn Progress) -> Result<Vec<Reference>> {
        let sources = Sources::new(&self.registry, reference, progress).of(reference.familiar_repository());
        let tags = self.block_on(sources.tags())?;
        tags.iter()
            .map(|tag| {
                let text = format!("{}:{tag}", reference.repository());
                Reference::parse(&text).map_err(|source| Error::Reference {
                    text: text.chars().take(256).collect(),
                    source,
                })
            })
            .collect()
    }
}
