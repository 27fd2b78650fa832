//! Where counters are written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Counters, a line of JSON each minute and when asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// A file or a named pipe.
    pub metrics_path: PathBuf,
}
