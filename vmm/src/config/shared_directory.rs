//! Directories of the host's in the guest. This is berth's own: Firecracker has no virtio-fs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Id, Named};
use crate::devices::virtio::fs::TAG_MAX;
use crate::error::{Error, Result};

/// A directory, or a file, that the guest can mount by its tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedDirectory {
    /// What the guest calls it: at most 36 letters, digits and underscores.
    pub tag: Id,
    /// A file becomes a directory that holds it alone, by its name.
    pub path_on_host: PathBuf,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub is_read_only: bool,
}

impl Named for SharedDirectory {
    fn id(&self) -> &Id {
        &self.tag
    }
}

impl SharedDirectory {
    pub(super) fn check(&self) -> Result<()> {
        if self.tag.as_str().len() > TAG_MAX {
            return Err(Error::Invalid {
                field: "shared-directories.tag",
                why: format!("{} has more than {TAG_MAX} bytes", self.tag),
            });
        }
        Ok(())
    }
}
