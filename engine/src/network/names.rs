//! Who answers to a name: `STATE/networks/<network>/names/<name>/<ip>`, an empty file for each address.
//!
//! A lookup is one directory listing, so the name server holds nothing in memory and is never out of date.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::error::{Error, Result};
use super::model::Paths;

/// Lower case, and safe as a file name: names in queries come from containers.
pub(super) fn normalize(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let fits = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    fits.then(|| name.to_ascii_lowercase())
}

/// Checks another name of a container: neighbours must be able to ask for it.
///
/// # Errors
/// [`Error::Alias`].
pub fn validate(name: &str) -> Result<()> {
    let is_askable = |name: String| name.split('.').all(|label| (1..=63).contains(&label.len()));
    if normalize(name).is_some_and(is_askable) {
        Ok(())
    } else {
        Err(Error::Alias(name.to_owned()))
    }
}

fn directory(paths: &Paths, network: &str, name: &str) -> PathBuf {
    paths.network(network).join("names").join(name)
}

/// Adds one answer. `name` is normalized.
pub(super) fn add(paths: &Paths, network: &str, name: &str, ip: Ipv4Addr) -> Result<()> {
    let directory = directory(paths, network, name);
    let path = directory.join(ip.to_string());
    loop {
        match File::create(&path) {
            Ok(_) => return Ok(()),
            // Also when another container's removal took the empty directory from under us.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
            }
            Err(error) => return Err(Error::file("create", path)(error)),
        }
    }
}

/// Removes one answer; absent is fine.
pub(super) fn remove(paths: &Paths, network: &str, name: &str, ip: Ipv4Addr) {
    let directory = directory(paths, network, name);
    let _ = fs::remove_file(directory.join(ip.to_string()));
    // Fails while others answer to the name.
    let _ = fs::remove_dir(directory);
}

/// All addresses of a normalized name.
pub(super) fn lookup(paths: &Paths, network: &str, name: &str) -> Vec<Ipv4Addr> {
    let entries = fs::read_dir(directory(paths, network, name))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
