//! Memory the host takes back from a running guest.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A memory balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// How much of the guest's memory it should hold, in MiB.
    pub amount_mib: u32,
    /// Whether the guest may take memory back instead of killing a process for the lack of it.
    pub deflate_on_oom: bool,
    /// Seconds between the guest's statistics; 0 for none.
    #[serde(default)]
    pub stats_polling_interval_s: u16,
    /// Whether the host may ask which pages are free.
    #[serde(default)]
    pub free_page_hinting: bool,
    /// Whether the guest tells which pages are free.
    #[serde(default)]
    pub free_page_reporting: bool,
}

/// The most a balloon can be told to hold: pages of 4 KiB are counted in 32 bits.
const AMOUNT_MIB_MAX: u32 = u32::MAX / 256;

impl Balloon {
    /// Whether a machine with this much memory can have it.
    pub(super) fn check(&self, memory_mib: u32) -> Result<()> {
        let why = if self.amount_mib > memory_mib {
            "are more than the machine has"
        } else if self.amount_mib > AMOUNT_MIB_MAX {
            "are more than a balloon can hold"
        } else {
            return Ok(());
        };
        Err(Error::Invalid {
            field: "balloon.amount_mib",
            why: format!("{} MiB {why}", self.amount_mib),
        })
    }
}

/// A new size while the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonChange {
    /// How much it should hold, in MiB.
    pub amount_mib: u32,
}

/// A new interval of the statistics while the guest runs; they cannot be switched on or off then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonStatisticsChange {
    /// Seconds between them.
    pub stats_polling_interval_s: u16,
}
