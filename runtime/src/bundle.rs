//! A bundle on disk: finds `config.json` and parses it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Larger than any honest configuration, small enough to hold.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// A parsed, unchecked bundle.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute, symlinks resolved.
    pub dir: PathBuf,
    /// What `config.json` says.
    pub spec: Spec,
}

impl Bundle {
    /// Reads `DIR/config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the field that does not parse.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = std::fs::canonicalize(dir).map_err(|e| Error::path("open bundle", dir, e))?;
        let spec = parse_file(&dir.join("config.json"))?;
        Ok(Self { dir, spec })
    }
}

/// Parses a JSON file of the specification.
///
/// # Errors
///
/// [`Error::Config`] names the field, or the line if the text is not JSON at all.
pub fn parse_file<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let length = std::fs::metadata(path)
        .map_err(|e| Error::path("open", path, e))?
        .len();
    if length > CONFIG_BYTES_MAX {
        return Err(Error::Config {
            path: path.into(),
            field: ".".into(),
            why: "larger than 16 MiB".into(),
        });
    }
    let text = std::fs::read(path).map_err(|e| Error::path("read", path, e))?;
    parse(&text, path)
}

/// Parses JSON text of the specification; `path` is for messages.
///
/// # Errors
///
/// As [`parse_file`].
pub fn parse<T: DeserializeOwned>(text: &[u8], path: &Path) -> Result<T> {
    // The plain parser first: following the path of every field costs a fifth more, and is only for messages.
    if let Ok(value) = serde_json::from_slice(text) {
        return Ok(value);
    }
    let mut parser = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut parser)
        .map_err(|e| Error::Config {
            path: path.into(),
            field: e.path().to_string(),
            why: e.inner().to_string(),
        })
        .and_then(|value| match parser.end() {
            Ok(()) => Ok(value),
            Err(e) => Err(Error::Config {
                path: path.into(),
                field: ".".into(),
                why: e.to_string(),
            }),
        })
}
