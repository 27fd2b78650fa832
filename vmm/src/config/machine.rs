//! Processors and memory.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The most vCPUs of one microVM.
pub const VCPUS_MAX: u8 = 32;

/// Processors and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// 1 to [`VCPUS_MAX`].
    pub vcpu_count: u8,
    /// Guest memory, in MiB.
    pub mem_size_mib: u32,
    /// Two processors to a core.
    #[serde(default)]
    pub smt: bool,
    /// Keep track of written pages, for snapshots of what changed.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// One of Firecracker's own sets of processor features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<CpuTemplate>,
    /// What guest memory is made of.
    #[serde(default)]
    pub huge_pages: HugePages,
}

/// Sets of processor features that Firecracker brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // names of instance types
pub enum CpuTemplate {
    C3,
    T2,
    T2S,
    T2CL,
    T2A,
    V1N1,
    /// What the host has.
    None,
}

/// Pages of guest memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// Of the usual size.
    #[default]
    None,
    /// Large where the host's kernel can make them so.
    Transparent,
    /// From the host's pool of 2 MiB pages.
    #[serde(rename = "2M")]
    Pool,
}

impl Default for MachineConfig {
    fn default() -> Self {
        MachineConfig {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            track_dirty_pages: false,
            cpu_template: None,
            huge_pages: HugePages::None,
        }
    }
}

impl MachineConfig {
    /// These values, and for the fields named in `change` those.
    ///
    /// # Errors
    ///
    /// A field that is none of these or whose value is not of its kind.
    pub fn changed(&self, change: &Map<String, Value>) -> serde_json::Result<MachineConfig> {
        let mut fields = serde_json::to_value(self)?;
        let given = change.iter().filter(|(_, value)| !value.is_null());
        let ours = fields.as_object_mut().expect("a struct is an object");
        ours.extend(given.map(|(name, value)| (name.clone(), value.clone())));
        serde_json::from_value(fields)
    }

    pub(super) fn check(&self) -> Result<()> {
        let invalid = |field, why: String| Err(Error::Invalid { field, why });
        if self.vcpu_count == 0 || self.vcpu_count > VCPUS_MAX {
            return invalid(
                "machine-config.vcpu_count",
                format!("{} is not between 1 and {VCPUS_MAX}", self.vcpu_count),
            );
        }
        if self.smt && self.vcpu_count > 1 && self.vcpu_count % 2 == 1 {
            return invalid(
                "machine-config.vcpu_count",
                format!("with smt {} must be even", self.vcpu_count),
            );
        }
        if self.mem_size_mib == 0 {
            return invalid("machine-config.mem_size_mib", "0 is no memory".into());
        }
        if self.huge_pages == HugePages::Pool && self.mem_size_mib % 2 == 1 {
            return invalid(
                "machine-config.mem_size_mib",
                format!("{} MiB are no multiple of a page's 2", self.mem_size_mib),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_rest_alone() {
        let machine = MachineConfig {
            mem_size_mib: 77,
            ..MachineConfig::default()
        };
        let changed = |text: &str| machine.changed(&serde_json::from_str(text).unwrap());
        let two = changed(r#"{"vcpu_count": 2, "smt": null, "cpu_template": "None"}"#).unwrap();
        assert_eq!((two.vcpu_count, two.mem_size_mib, two.smt), (2, 77, false));
        assert_eq!(two.cpu_template, Some(CpuTemplate::None));
        assert!(changed(r#"{"vcpus": 2}"#).is_err());
        assert!(changed(r#"{"vcpu_count": "2"}"#).is_err());
    }
}
