//! Random numbers for the guest.

use serde::{Deserialize, Serialize};

use super::RateLimiter;

/// A virtio-rng device, fed from the host's kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entropy {
    /// How much the guest may draw.
    pub rate_limiter: Option<RateLimiter>,
}
