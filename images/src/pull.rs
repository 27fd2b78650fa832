//! reference -> manifest for the platform -> config -> missing layers, each digested, stored and unpacked as it arrives.

use crate::Images;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::platform::Platform;
use crate::progress::{Progress, Quiet};
use crate::reference::Reference;

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

impl Images {
    /// Pulls an image. Blocks; runs its own small tokio runtime and ends every thread of it before returning.
    ///
    /// # Errors
    /// Whatever the registry, the network, the content or the disk does wrong; nothing unverified is left in the store.
    pub fn pull(&self, _reference: &Reference, _options: PullOptions<'_>) -> Result<Image> {
        Err(Error::Unsupported("pull"))
    }
}
