//! Where counters are written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Counters, a line of JSON each minute and when asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// A file or a named pipe.
    pub metrics_path: PathBuf,
    /// Words of the user's that stand in each line.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

impl Metrics {
    /// Counters to this file or pipe, without more.
    #[must_use]
    pub fn to(metrics_path: PathBuf) -> Metrics {
        Metrics {
            metrics_path,
            properties: BTreeMap::new(),
        }
    }
}
