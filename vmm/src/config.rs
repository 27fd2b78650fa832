//! What a user may ask for, in the words of Firecracker's configuration file, and its checks.
//!
//! ```text
//! JSON file ─ serde ─► File ─ check ─► Config, which boots or fails for reasons of the host alone
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::arch::x86_64::layout::CMDLINE_MAX;
use crate::error::{Error, Result};

/// The most vCPUs of one microVM.
pub const VCPUS_MAX: u8 = 32;

/// What the kernel is told when the configuration does not say.
pub const DEFAULT_CMDLINE: &str = "reboot=k panic=1 pci=off console=ttyS0";

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// vmlinux or bzImage.
    pub kernel: PathBuf,
    /// A cpio archive, compressed as the kernel likes it.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// 1 to [`VCPUS_MAX`].
    pub vcpus: u8,
    /// Guest memory, in MiB.
    pub memory_mib: u32,
}

/// The file as written. Keys of devices that are not there yet are read, so that they can be refused by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    boot_source: BootSource,
    #[serde(default)]
    machine_config: MachineConfig,
    #[serde(default)]
    drives: Vec<serde_json::Value>,
    #[serde(default)]
    network_interfaces: Vec<serde_json::Value>,
    vsock: Option<serde_json::Value>,
    balloon: Option<serde_json::Value>,
    entropy: Option<serde_json::Value>,
    cpu_config: Option<serde_json::Value>,
    logger: Option<serde_json::Value>,
    metrics: Option<serde_json::Value>,
    mmds_config: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootSource {
    kernel_image_path: PathBuf,
    initrd_path: Option<PathBuf>,
    boot_args: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineConfig {
    vcpu_count: u8,
    mem_size_mib: u32,
    #[serde(default)]
    smt: bool,
    #[serde(default)]
    track_dirty_pages: bool,
    cpu_template: Option<String>,
    huge_pages: Option<String>,
}

impl Default for MachineConfig {
    fn default() -> Self {
        MachineConfig {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            track_dirty_pages: false,
            cpu_template: None,
            huge_pages: None,
        }
    }
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Syntax`] with line and column, [`Error::Invalid`] and [`Error::Unsupported`] with the
    /// field's name.
    pub fn read(path: &Path) -> Result<Config> {
        let bytes = std::fs::read(path).map_err(|source| Error::File {
            operation: "read",
            path: path.into(),
            source,
        })?;
        let file = serde_json::from_slice(&bytes).map_err(|source| Error::Syntax {
            path: path.into(),
            source,
        })?;
        check(file)
    }
}

fn check(file: File) -> Result<Config> {
    absent(&file)?;
    let machine = &file.machine_config;
    let invalid = |field, why: String| Err(Error::Invalid { field, why });
    if machine.vcpu_count == 0 || machine.vcpu_count > VCPUS_MAX {
        return invalid(
            "machine-config.vcpu_count",
            format!("{} is not between 1 and {VCPUS_MAX}", machine.vcpu_count),
        );
    }
    if machine.mem_size_mib == 0 {
        return invalid("machine-config.mem_size_mib", "0 is no memory".into());
    }
    let cmdline = file
        .boot_source
        .boot_args
        .unwrap_or_else(|| DEFAULT_CMDLINE.to_owned());
    if cmdline.len() >= CMDLINE_MAX || cmdline.contains('\0') {
        return invalid(
            "boot-source.boot_args",
            format!("it must be shorter than {CMDLINE_MAX} bytes and hold no zero byte"),
        );
    }
    Ok(Config {
        kernel: file.boot_source.kernel_image_path,
        initrd: file.boot_source.initrd_path,
        cmdline,
        vcpus: machine.vcpu_count,
        memory_mib: machine.mem_size_mib,
    })
}

/// What is not there yet is refused by name, never left out in silence.
fn absent(file: &File) -> Result<()> {
    let machine = &file.machine_config;
    let none = |option: &Option<String>, value: &str| option.as_deref().is_none_or(|text| text == value);
    let why = "this monitor does not have it yet";
    for (asked, what) in [
        (!file.drives.is_empty(), "drives"),
        (!file.network_interfaces.is_empty(), "network-interfaces"),
        (file.vsock.is_some(), "vsock"),
        (file.balloon.is_some(), "balloon"),
        (file.entropy.is_some(), "entropy"),
        (file.cpu_config.is_some(), "cpu-config"),
        (file.logger.is_some(), "logger"),
        (file.metrics.is_some(), "metrics"),
        (file.mmds_config.is_some(), "mmds-config"),
        (machine.smt, "machine-config.smt"),
        (machine.track_dirty_pages, "machine-config.track_dirty_pages"),
        (
            !none(&machine.cpu_template, "None"),
            "machine-config.cpu_template",
        ),
        (!none(&machine.huge_pages, "None"), "machine-config.huge_pages"),
    ] {
        if asked {
            return Err(Error::Unsupported { what, why });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let file = serde_json::from_str(text).map_err(|e| e.to_string())?;
        check(file).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_firecrackers() {
        let config = parse(r#"{"boot-source": {"kernel_image_path": "/k"}}"#).unwrap();
        assert_eq!(
            (config.vcpus, config.memory_mib, &*config.cmdline),
            (1, 128, DEFAULT_CMDLINE)
        );
    }

    #[test]
    fn every_refusal_names_its_field() {
        let long = "x".repeat(CMDLINE_MAX);
        let boot = r#""boot-source": {"kernel_image_path": "/k"}"#;
        for (text, words) in [
            ("{}".to_owned(), "boot-source"),
            (format!(r#"{{{boot}, "drive": []}}"#), "drive"),
            (format!(r#"{{{boot}, "drives": [1]}}"#), "not supported: drives"),
            (
                format!(r#"{{{boot}, "machine-config": {{"vcpu_count": 33, "mem_size_mib": 1}}}}"#),
                "vcpu_count: 33",
            ),
            (
                format!(r#"{{{boot}, "machine-config": {{"vcpu_count": 1, "mem_size_mib": 0}}}}"#),
                "mem_size_mib",
            ),
            (
                format!(
                    r#"{{{boot}, "machine-config": {{"vcpu_count": 1, "mem_size_mib": 1, "smt": true}}}}"#
                ),
                "smt",
            ),
            (
                format!(r#"{{"boot-source": {{"kernel_image_path": "/k", "boot_args": "{long}"}}}}"#),
                "boot_args",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
