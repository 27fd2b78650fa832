//! The image config: what a container of this image runs, and what its layers unpack to (image-spec config.md).
//!
//! docker writes `null` where the specification says array or object, and adds members of its own (`Healthcheck`,
//! `OnBuild`, `Shell`); both are read. The digest of the config's bytes is the image id.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;

/// An image config document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// GOARCH.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// GOOS.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// The architecture's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Only for Windows.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// How to run it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfig,
    /// The digests of the uncompressed layers.
    pub rootfs: RootFs,
    /// How it was made, a line per step.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
}

/// The defaults a container inherits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `user[:group]`, names or numbers.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// Keys like `80/tcp`.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Comes before the command.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The default command.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Paths that become anonymous volumes. Foreign text: resolve it inside the rootfs (CVE-2022-23648).
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, Empty>,
    /// Where the command starts.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Free text.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// A name or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// docker: seconds to wait after the stop signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<u64>,
    /// docker: how to ask whether it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// docker: the shell of `RUN` lines.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// docker: instructions for images built on this one.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
}

/// The value of set-like maps: `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// docker's health check; durations in nanoseconds, 0 means the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Between checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// For one check.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Failures not counted after start.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between checks during the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that mean unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// What the layers unpack to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed tars, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of how the image was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Parses the document and checks it against how many layers its manifest has.
    ///
    /// # Errors
    /// [`Error`] when it is malformed or lists another number of layers.
    pub fn parse(bytes: &[u8], layers: usize) -> Result<Self, Error> {
        let config: Self = serde_json::from_slice(bytes).map_err(Error::Malformed)?;
        if config.rootfs.kind != "layers" && !(config.rootfs.kind.is_empty() && layers == 0) {
            return Err(Error::RootFsType(config.rootfs.kind));
        }
        if config.rootfs.diff_ids.len() != layers {
            return Err(Error::LayerCount {
                diff_ids: config.rootfs.diff_ids.len(),
                layers,
            });
        }
        Ok(config)
    }

    /// The platform it runs on.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
        }
    }
}

/// Why an image config is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not of this shape.
    #[error("the image config is malformed")]
    Malformed(#[source] serde_json::Error),
    /// Not made of layers.
    #[error("rootfs type {0:?} is not supported")]
    RootFsType(String),
    /// Manifest and config disagree.
    #[error("the config lists {diff_ids} layers, the manifest {layers}")]
    LayerCount {
        /// In the config.
        diff_ids: usize,
        /// In the manifest.
        layers: usize,
    },
}

/// Go writes an empty slice or map as `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn dockers_nulls_and_extras_are_read() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","docker_version":"20","container_config":{{}},
            "config":{{"Env":null,"Cmd":["sh"],"Entrypoint":null,"ExposedPorts":{{"80/tcp":{{}}}},"Volumes":null,
              "Healthcheck":{{"Test":["CMD","true"],"Interval":1000000000}},"OnBuild":null,"Labels":null,"Hostname":"x"}},
            "rootfs":{{"type":"layers","diff_ids":["{D}"]}},"history":null}}"#
        );
        let config = ImageConfig::parse(text.as_bytes(), 1).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.env.is_empty());
        assert!(config.config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(
            config.config.healthcheck.as_ref().unwrap().interval,
            1_000_000_000
        );
        assert!(matches!(
            ImageConfig::parse(text.as_bytes(), 2),
            Err(Error::LayerCount {
                diff_ids: 1,
                layers: 2
            })
        ));
    }

    #[test]
    fn a_null_config_member_means_defaults() {
        let text = br#"{"architecture":"amd64","os":"linux","config":null,"rootfs":{"type":"layers","diff_ids":null}}"#;
        assert_eq!(ImageConfig::parse(text, 0).unwrap().config, RunConfig::default());
    }
}
