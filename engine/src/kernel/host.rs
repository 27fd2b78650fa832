//! The kernels a distribution's packages installed on this host.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::PathBuf;

use super::error::{At, Error};
use super::image;

/// Where packages put them.
#[derive(Debug, Clone)]
pub struct Host {
    /// Holds `vmlinuz-*`.
    pub boot: PathBuf,
    /// Holds a directory for each release.
    pub modules: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            boot: "/boot".into(),
            modules: "/lib/modules".into(),
        }
    }
}

/// One of them.
pub(super) struct Installed {
    pub(super) kernel: PathBuf,
    pub(super) release: String,
    pub(super) modules: PathBuf,
}

impl Host {
    /// The newest kernel that has its modules beside it. Its release is read from the file, whatever that is called; a file that
    /// is no kernel is passed over.
    pub(super) fn newest(&self) -> Result<Option<Installed>, Error> {
        let entries = match fs::read_dir(&self.boot) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.at("list", &self.boot)?,
        };
        let mut newest: Option<Installed> = None;
        for entry in entries {
            let entry = entry.at("list", &self.boot)?;
            let kernel = entry.path();
            if !entry.file_name().to_string_lossy().starts_with("vmlinuz-") {
                continue;
            }
            let file = File::open(&kernel).at("open", &kernel)?;
            let release = match image::release(&file, &kernel) {
                Ok(release) => release,
                Err(Error::NotKernel { .. }) => continue,
                Err(e) => return Err(e),
            };
            let modules = self.modules.join(&release);
            let is_newer = newest
                .as_ref()
                .is_none_or(|newest| compare(&release, &newest.release) == Ordering::Greater);
            if is_newer && modules.join("modules.builtin").is_file() {
                newest = Some(Installed {
                    kernel,
                    release,
                    modules,
                });
            }
        }
        Ok(newest)
    }
}

/// Compares releases as people read them: numbers by value, what is between them by its bytes.
fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    for (a, b) in a.iter().zip(&b) {
        let by_value = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a.cmp(b),
        };
        if by_value.is_ne() {
            return by_value;
        }
    }
    a.len().cmp(&b.len())
}

fn parts(release: &str) -> Vec<&str> {
    release
        .as_bytes()
        .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
        .filter_map(|part| std::str::from_utf8(part).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_their_numbers() {
        let ordered = [
            "5.10.0-30-amd64",
            "6.1.0-9-amd64",
            "6.1.0-56-amd64",
            "6.1.0-56-cloud-amd64",
            "6.1.0-100-amd64",
            "6.12.1",
            "6.12.1+deb13",
            "10.0.0",
        ];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("6.1.0", "6.1.0"), Ordering::Equal);
    }
}
