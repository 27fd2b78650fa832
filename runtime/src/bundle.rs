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
    /// What was left out of it, for the caller to pass on.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Reads `DIR/config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the field that does not parse.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = std::fs::canonicalize(dir).map_err(|e| Error::path("open bundle", dir, e))?;
        let (spec, warnings) = parse_with_capabilities(&dir.join("config.json"), "/process/capabilities")?;
        Ok(Self { dir, spec, warnings })
    }
}

/// Parses a JSON file of the specification.
///
/// # Errors
///
/// [`Error::Config`] names the field, or the line if the text is not JSON at all.
pub fn parse_file<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse(&read(path)?, path)
}

/// Parses a JSON file that holds capabilities at the JSON pointer `at`: names no capability has are left out, with a
/// warning.
///
/// # Errors
///
/// As [`parse_file`].
pub fn parse_with_capabilities<T: DeserializeOwned>(path: &Path, at: &str) -> Result<(T, Vec<String>)> {
    let text = read(path)?;
    let first = parse(&text, path);
    if first.is_ok() {
        return first.map(|value| (value, Vec::new()));
    }
    // Looked at only when something is wrong: a second pass is not for the start path.
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(&text) else {
        return first.map(|value| (value, Vec::new()));
    };
    match value.pointer_mut(at).and_then(crate::capabilities::drop_unknown) {
        Some(warning) => Ok((parse(value.to_string().as_bytes(), path)?, vec![warning])),
        None => first.map(|value| (value, Vec::new())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
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
    std::fs::read(path).map_err(|e| Error::path("read", path, e))
}

/// Parses JSON text of the specification; `path` is for messages.
///
/// # Errors
///
/// As [`parse_file`].
pub fn parse<T: DeserializeOwned>(text: &[u8], path: &Path) -> Result<T> {
    // The plain parser first: following the path of every field costs a fifth more, and is only for messages.
    serde_json::from_slice(text).or_else(|e| named(text, path, &e))
}

/// Parses again to learn which field it was.
#[cfg(feature = "field-paths")]
fn named<T: DeserializeOwned>(text: &[u8], path: &Path, _: &serde_json::Error) -> Result<T> {
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

/// Line and column have to do.
#[cfg(not(feature = "field-paths"))]
fn named<T>(_: &[u8], path: &Path, e: &serde_json::Error) -> Result<T> {
    Err(Error::Config {
        path: path.into(),
        field: ".".into(),
        why: e.to_string(),
    })
}
