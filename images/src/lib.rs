//! A reference on a registry becomes mounts on disk.
//!
//! ```text
//! reference ─► registry: manifest for the platform ─► config ─► layers ─┬─► content   (blob, verified)
//!                                                                       └─► snapshot  (unpacked as it arrives)
//! image: name ─► descriptor          pull, push, tags, gc, login, inspect: a page each over the parts above
//! ```
//!
//! Start at [`Images`]. Only the transfer inside [`Images::pull`] and [`Images::push`] uses tokio, and no thread of it is
//! left when they return. This crate knows nothing of containers.

use std::path::{Path, PathBuf};

pub mod archive;
pub mod config;
pub mod content;
pub mod digest;
pub mod erofs;
pub mod error;
pub mod gc;
pub mod image;
pub mod inspect;
pub mod layer;
pub mod login;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod progress;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod snapshot;
mod tags;
pub mod usage;

pub use config::ImageConfig;
pub use digest::Digest;
pub use error::{Error, Result};
pub use image::Image;
pub use platform::Platform;
pub use progress::Progress;
pub use pull::{Policy, PullOptions};
pub use reference::Reference;

/// The image store under one root, and how to reach registries. Opening is cheap; many processes may hold one at once.
#[derive(Debug, Clone)]
pub struct Images {
    root: PathBuf,
    content: content::Store,
    layers: snapshot::Store,
    registry: registry::Config,
}

impl Images {
    /// Opens the store at `root` (`/var/lib/berth`), making what is missing.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn open(root: &Path) -> Result<Self> {
        let content = content::Store::open(root)?;
        let images = root.join("images");
        if !images.is_dir() {
            content::atomic::make_dir(&images)?;
        }
        let layers = snapshot::Store::open(root).map_err(|source| Error::Layers {
            object: root.display().to_string(),
            source,
        })?;
        Ok(Self {
            root: root.to_owned(),
            content,
            layers,
            registry: registry::Config::default(),
        })
    }

    /// The same store, reaching registries as `config` says.
    #[must_use]
    pub fn with_registry(self, config: registry::Config) -> Self {
        Self {
            registry: config,
            ..self
        }
    }
}
