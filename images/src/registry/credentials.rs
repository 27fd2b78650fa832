//! Credentials in docker's `config.json`: `auths`, `credHelpers`, `credsStore`.
//!
//! A credential helper is a program `docker-credential-NAME` on the PATH that is asked over its standard input, so
//! no secret is ever on a command line.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Error;

/// docker's key for its own registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name by which helpers and `auths` mark a refresh token.
const TOKEN_USER: &str = "<token>";

/// What to show a registry. `Debug` keeps the secret to itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password.
    Basic {
        /// Who.
        user: String,
        /// The secret.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
    /// A bearer token to present as it is.
    RegistryToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

/// Where the file is: the configured path, `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`.
#[must_use]
pub fn auth_file(configured: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = configured {
        return Some(path.to_owned());
    }
    if let Some(directory) = std::env::var_os("DOCKER_CONFIG").filter(|d| !d.is_empty()) {
        return Some(PathBuf::from(directory).join("config.json"));
    }
    std::env::home_dir().map(|home| home.join(".docker/config.json"))
}

/// The key under which docker keeps a registry's entry.
#[must_use]
pub fn key(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB_KEY,
        other => other,
    }
}

/// Reads the file whole; an absent one is empty.
///
/// # Errors
/// [`Error::AuthFile`].
pub fn read(path: &Path) -> Result<Map<String, Value>, Error> {
    let bad = |why: String| Error::AuthFile {
        path: path.to_owned(),
        why,
    };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Map::new()),
        Err(e) => return Err(bad(e.to_string())),
    };
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    // serde_json's message holds a position, never the text.
    serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))
}

/// The credentials for `registry` (`docker.io`, `localhost:5000`), if any. May run a helper program; blocks.
///
/// # Errors
/// [`Error::AuthFile`], [`Error::Helper`].
pub fn find(path: &Path, registry: &str) -> Result<Option<Credentials>, Error> {
    let config = read(path)?;
    if let Some(helper) = helper(&config, registry) {
        return ask_helper(&helper, key(registry));
    }
    let Some(auths) = config.get("auths").and_then(Value::as_object) else {
        return Ok(None);
    };
    let entry = auths
        .iter()
        .find(|(k, _)| k.as_str() == key(registry))
        .or_else(|| {
            // Old files have URLs for keys.
            auths.iter().find(|(k, _)| host_of(k) == host_of(key(registry)))
        });
    let Some((_, entry)) = entry else { return Ok(None) };
    let text = |member: &str| {
        entry
            .get(member)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
    };
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::IdentityToken(token.into())));
    }
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credentials::RegistryToken(token.into())));
    }
    if let Some(auth) = text("auth") {
        let bad = |why: &str| Error::AuthFile {
            path: path.to_owned(),
            why: format!("auth of {registry}: {why}"),
        };
        let decoded = STANDARD.decode(auth.trim()).map_err(|_| bad("not base64"))?;
        let decoded = String::from_utf8(decoded).map_err(|_| bad("not UTF-8"))?;
        let (user, password) = decoded.split_once(':').ok_or_else(|| bad("no colon"))?;
        // docker pads with NULs.
        return Ok(Some(from_pair(user, password.trim_end_matches('\0'))));
    }
    match (text("username"), text("password")) {
        (Some(user), Some(password)) => Ok(Some(from_pair(user, password))),
        _ => Ok(None),
    }
}

fn from_pair(user: &str, password: &str) -> Credentials {
    if user == TOKEN_USER {
        return Credentials::IdentityToken(password.into());
    }
    Credentials::Basic {
        user: user.into(),
        password: password.into(),
    }
}

/// The helper that keeps this registry's credentials.
#[must_use]
pub fn helper(config: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = config
        .get("credHelpers")
        .and_then(Value::as_object)
        .and_then(|helpers| {
            helpers
                .get(registry)
                .or_else(|| helpers.get(key(registry)))
                .and_then(Value::as_str)
        });
    own.or_else(|| config.get("credsStore").and_then(Value::as_str))
        .filter(|h| !h.is_empty())
        .map(str::to_owned)
}

fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>, Error> {
    let output = match run_helper(name, "get", server)? {
        Ok(output) => output,
        Err(said) if said.contains("credentials not found") => return Ok(None),
        Err(said) => {
            return Err(Error::Helper {
                helper: name.into(),
                why: said,
            });
        }
    };
    let answer: Value = serde_json::from_slice(&output).map_err(|_| Error::Helper {
        helper: name.into(),
        why: "its answer is not JSON".into(),
    })?;
    let text = |member: &str| answer.get(member).and_then(Value::as_str).unwrap_or_default();
    if text("Secret").is_empty() {
        return Ok(None);
    }
    Ok(Some(from_pair(text("Username"), text("Secret"))))
}

/// Runs `docker-credential-NAME VERB` with `input` on its standard input. The inner result is what it printed: its answer,
/// or its complaint if it failed.
///
/// # Errors
/// [`Error::Helper`] when it cannot run.
pub fn run_helper(name: &str, verb: &str, input: &str) -> Result<Result<Vec<u8>, String>, Error> {
    let bad = |why: String| Error::Helper {
        helper: format!("docker-credential-{name}"),
        why,
    };
    // The name comes from a file; with a slash in it the PATH would no longer decide what runs.
    if name.contains('/') {
        return Err(bad("the name must not contain a slash".into()));
    }
    let mut command = Command::new(format!("docker-credential-{name}"));
    // A transfer holds signals back; whoever ends it ends its helper too.
    berth_sys::signals::unblock_at_exec(&mut command);
    let mut child = command
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| bad(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may answer without reading; its answer decides then.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| bad(e.to_string()))?;
    if output.status.success() {
        return Ok(Ok(output.stdout));
    }
    Ok(Err(String::from_utf8_lossy(&output.stdout)
        .trim()
        .chars()
        .take(200)
        .collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(json: &str, registry: &str) -> Result<Option<Credentials>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, json).unwrap();
        find(&path, registry)
    }

    #[test]
    fn every_way_docker_writes_credentials_is_read() {
        let basic = Credentials::Basic {
            user: "me".into(),
            password: "a:b".into(),
        };
        let json = format!(
            r#"{{"auths":{{"x.io":{{"auth":"{}"}}}}}}"#,
            STANDARD.encode("me:a:b")
        );
        assert_eq!(find_in(&json, "x.io").unwrap(), Some(basic.clone()));
        assert_eq!(find_in(&json, "y.io").unwrap(), None);
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"username":"me","password":"a:b"}}}"#;
        assert_eq!(find_in(json, "docker.io").unwrap(), Some(basic.clone()));
        let json = r#"{"auths":{"https://x.io/v2/":{"username":"me","password":"a:b"}}}"#;
        assert_eq!(find_in(json, "x.io").unwrap(), Some(basic));
        let json = r#"{"auths":{"x.io":{"identitytoken":"t","auth":""}}}"#;
        assert_eq!(
            find_in(json, "x.io").unwrap(),
            Some(Credentials::IdentityToken("t".into()))
        );
    }

    #[test]
    fn a_prefix_of_a_host_gets_nothing() {
        let json = r#"{"auths":{"x.io":{"username":"me","password":"p"}}}"#;
        for other in ["x.io.evil.com", "x.i", "evil-x.io", "x.io:5000"] {
            assert_eq!(find_in(json, other).unwrap(), None, "{other}");
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_its_secrets_are_not_shown() {
        let error = find_in(r#"{"auths":{"x.io":{"auth":"aHVudGVyMg=="}}}"#, "x.io").unwrap_err();
        assert!(error.to_string().contains("no colon") && !error.to_string().contains("hunter2"));
        assert!(matches!(find_in("{", "x.io"), Err(Error::AuthFile { .. })));
        assert_eq!(find_in("", "x.io").unwrap(), None);
        let shown = format!(
            "{:?}",
            Credentials::Basic {
                user: "u".into(),
                password: "hunter2".into()
            }
        );
        assert!(!shown.contains("hunter2"));
    }

    #[test]
    fn a_helper_with_a_path_for_a_name_does_not_run() {
        let error = find_in(r#"{"credsStore":"../../bin/evil"}"#, "x.io").unwrap_err();
        assert!(matches!(error, Error::Helper { .. }));
    }
}
