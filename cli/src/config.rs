//! `/etc/berth/config.json`: how to reach registries. Absent is fine.
//!
//! ```json
//! {"registries": {"insecure": ["registry.lan:5000"], "mirrors": {"docker.io": ["https://mirror.lan"]}}}
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use berth_images::registry;
use serde::Deserialize;

use crate::failure::{Failure, Result};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    registries: Registries,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Registries {
    insecure: Vec<String>,
    mirrors: BTreeMap<String, Vec<String>>,
}

/// Reads the file, which may be absent unless `is_asked_for`.
pub fn load(path: &Path, is_asked_for: bool) -> Result<registry::Config> {
    let file = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| Failure::new(format!("configuration {}: {e}", path.display())))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !is_asked_for => File::default(),
        Err(e) => {
            return Err(Failure::new(format!(
                "read configuration {}: {e}",
                path.display()
            )));
        }
    };
    let File {
        registries: Registries { insecure, mirrors },
    } = file;
    Ok(registry::Config {
        insecure,
        mirrors,
        ..registry::Config::default()
    })
}
