//! `berth login` and `logout`: credentials in docker's `config.json`, verified before they are kept.
//!
//! The file is docker's, so every member berth does not know stays as it is. It is replaced as a whole with mode 0600; two
//! logins at once lock its directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::Images;
use crate::content::atomic;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::registry::credentials::{self, Credentials};
use crate::registry::{self, Actions, Repository};

impl Images {
    /// Checks user and password against `registry` (`docker.io`, `localhost:5000`), then stores them. Blocks.
    ///
    /// # Errors
    /// The registry refuses them, is unreachable, or the file cannot be written.
    pub fn login(&self, registry: &str, user: &str, password: &str) -> Result<()> {
        let (domain, host) = addresses(registry)?;
        let failed = |e| Error::registry("log in to", &domain)(e);
        let given = Credentials::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        self.block_on(async {
            let repository = Repository::connect(&self.registry, &host, &domain, "", Actions::Pull).await;
            repository
                .map_err(failed)?
                .with_credentials(given)
                .check()
                .await
                .map_err(failed)
        })?;
        self.edit(&domain, |config| {
            if let Some(helper) = credentials::helper(config, &domain) {
                let entry =
                    json!({"ServerURL": credentials::key(&domain), "Username": user, "Secret": password});
                return told(
                    &helper,
                    credentials::run_helper(&helper, "store", &entry.to_string()),
                )
                .map(|()| true);
            }
            let entry = json!({"auth": STANDARD.encode(format!("{user}:{password}"))});
            auths(config).insert(credentials::key(&domain).to_owned(), entry);
            Ok(true)
        })
        .map(drop)
    }

    /// Forgets the credentials of `registry`; returns whether there were any.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn logout(&self, registry: &str) -> Result<bool> {
        let (domain, _) = addresses(registry)?;
        self.edit(&domain, |config| {
            let mut had_any = auths(config).remove(credentials::key(&domain)).is_some();
            if let Some(helper) = credentials::helper(config, &domain) {
                let erased = credentials::run_helper(&helper, "erase", credentials::key(&domain))?;
                had_any |= erased.is_ok();
            }
            Ok(had_any)
        })
    }

    /// Changes the credentials file under its lock. It is written only if `change` says so.
    fn edit(
        &self,
        domain: &str,
        change: impl FnOnce(&mut Map<String, Value>) -> Result<bool, registry::Error>,
    ) -> Result<bool> {
        let path = credentials::auth_file(self.registry.auth_file.as_deref()).ok_or(Error::NoHome)?;
        // A link to the real file, as dotfile managers make, must stay a link.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let directory: PathBuf = path.parent().unwrap_or(Path::new("/")).to_owned();
        if !directory.is_dir() {
            atomic::make_dir(&directory)?;
        }
        let lock = File::open(&directory).map_err(Error::file("open", &directory))?;
        lock.lock().map_err(Error::file("lock", &directory))?;
        let failed = |e| Error::registry("keep credentials of", domain)(e);
        let mut config = credentials::read(&path).map_err(failed)?;
        let is_changed = change(&mut config).map_err(failed)?;
        if is_changed {
            let mut text = serde_json::to_vec_pretty(&config).map_err(|source| Error::Damaged {
                path: path.clone(),
                source,
            })?;
            text.push(b'\n');
            atomic::write(&path, &text, 0o600)?;
        }
        Ok(is_changed)
    }
}

/// The object `auths`, made if it is missing or nonsense.
fn auths(config: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let entry = config.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    match entry {
        Value::Object(auths) => auths,
        _ => unreachable!("made an object above"),
    }
}

fn told(
    helper: &str,
    outcome: Result<Result<Vec<u8>, String>, registry::Error>,
) -> Result<(), registry::Error> {
    match outcome? {
        Ok(_) => Ok(()),
        Err(why) => Err(registry::Error::Helper {
            helper: helper.to_owned(),
            why,
        }),
    }
}

/// A registry as users name it, and the host that serves it. An empty name and docker's old URL mean docker.io.
fn addresses(registry: &str) -> Result<(String, String)> {
    let bare = registry
        .trim()
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let bare = bare.split('/').next().unwrap_or_default();
    let name = match bare {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    // The first part of a reference with a path behind it, so the one parser decides what a registry is.
    let name = if name.contains(['.', ':']) || name == "localhost" {
        name.to_owned()
    } else {
        format!("{name}:443")
    };
    let reference = Reference::parse(&format!("{name}/x/y")).map_err(|source| Error::Reference {
        text: registry.to_owned(),
        source,
    })?;
    Ok((
        reference.domain().to_owned(),
        reference.registry_host().to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_one_name_however_it_is_written() {
        for (text, domain, host) in [
            ("", "docker.io", "registry-1.docker.io"),
            ("docker.io", "docker.io", "registry-1.docker.io"),
            ("https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"),
            ("localhost:5000", "localhost:5000", "localhost:5000"),
            ("https://quay.io/", "quay.io", "quay.io"),
        ] {
            assert_eq!(
                addresses(text).unwrap(),
                (domain.to_owned(), host.to_owned()),
                "{text}"
            );
        }
        assert!(addresses("a b.c").is_err());
    }

    #[test]
    fn unknown_members_survive_an_edit() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("docker/config.json");
        fs::create_dir(dir.path().join("docker")).unwrap();
        fs::write(
            &file,
            r#"{"HttpHeaders":{"X":"y"},"auths":{"other.io":{"auth":"eDp5"},"x.io":{"auth":"eDp5"}}}"#,
        )
        .unwrap();
        let config = registry::Config {
            auth_file: Some(file.clone()),
            ..registry::Config::default()
        };
        let images = Images::open(&dir.path().join("root"))
            .unwrap()
            .with_registry(config);
        assert!(images.logout("x.io").unwrap());
        assert!(!images.logout("x.io").unwrap());
        let text: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(
            text,
            json!({"HttpHeaders": {"X": "y"}, "auths": {"other.io": {"auth": "eDp5"}}})
        );
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
