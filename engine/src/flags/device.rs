//! `--device` and `--device-cgroup-rule`.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidFlag;

/// `/dev/on-host[:/dev/in-container][:rwm]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// The device (or a directory of devices) on the host.
    pub host: PathBuf,
    /// Its path inside.
    pub container: PathBuf,
    /// Some of `r`, `w`, `m`.
    pub permissions: String,
}

fn are_permissions(s: &str) -> bool {
    !s.is_empty() && s.len() <= 3 && s.bytes().all(|b| b"rwm".contains(&b))
}

impl FromStr for DeviceMapping {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: &str| InvalidFlag::new("device", s, why);
        let parts: Vec<&str> = s.split(':').collect();
        let (host, container, permissions) = match parts[..] {
            [host] => (host, host, "rwm"),
            [host, second] if are_permissions(second) => (host, host, second),
            [host, container] => (host, container, "rwm"),
            [host, container, permissions] => (host, container, permissions),
            _ => return Err(bad("expected host[:container][:rwm]")),
        };
        if !host.starts_with('/') || !container.starts_with('/') {
            return Err(bad("device paths are absolute"));
        }
        if container.split('/').any(|part| part == "..") {
            return Err(bad("the path inside contains '..'"));
        }
        if !are_permissions(permissions) {
            return Err(bad("permissions are some of r, w and m"));
        }
        Ok(DeviceMapping {
            host: host.into(),
            container: container.into(),
            permissions: permissions.to_owned(),
        })
    }
}

/// `type major:minor permissions`, such as `c 42:* rwm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCgroupRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// Major number; none is all.
    pub major: Option<u32>,
    /// Minor number; none is all.
    pub minor: Option<u32>,
    /// Some of `r`, `w`, `m`.
    pub permissions: String,
}

impl FromStr for DeviceCgroupRule {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: &str| InvalidFlag::new("device cgroup rule", s, why);
        let parts: Vec<&str> = s.split_ascii_whitespace().collect();
        let [kind, numbers, permissions] = parts[..] else {
            return Err(bad("expected 'type major:minor permissions'"));
        };
        let kind = match kind {
            "a" => 'a',
            "b" => 'b',
            "c" => 'c',
            _ => return Err(bad("the type is a, b or c")),
        };
        let number = |t: &str| match t {
            "*" => Ok(None),
            _ => t
                .parse::<u32>()
                .map(Some)
                .map_err(|_| bad("expected numbers or *")),
        };
        let (major, minor) = numbers
            .split_once(':')
            .ok_or_else(|| bad("expected major:minor"))?;
        if !are_permissions(permissions) {
            return Err(bad("permissions are some of r, w and m"));
        }
        Ok(DeviceCgroupRule {
            kind,
            major: number(major)?,
            minor: number(minor)?,
            permissions: permissions.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn devices_as_docker_reads_them() {
        let d: DeviceMapping = "/dev/fuse".parse().unwrap();
        assert_eq!(
            (d.container.to_str(), d.permissions.as_str()),
            (Some("/dev/fuse"), "rwm")
        );
        let d: DeviceMapping = "/dev/sda:r".parse().unwrap();
        assert_eq!(
            (d.container.to_str(), d.permissions.as_str()),
            (Some("/dev/sda"), "r")
        );
        let d: DeviceMapping = "/dev/sda:/dev/xvdc:rw".parse().unwrap();
        assert_eq!(
            (d.container.to_str(), d.permissions.as_str()),
            (Some("/dev/xvdc"), "rw")
        );
        for bad in [
            "",
            "fuse",
            "/dev/a:b",
            "/dev/a:/dev/../b",
            "/dev/a:/dev/b:x",
            "/a:/b:r:w",
        ] {
            assert!(bad.parse::<DeviceMapping>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cgroup_rules() {
        let rule: DeviceCgroupRule = "c 42:* rwm".parse().unwrap();
        assert_eq!((rule.kind, rule.major, rule.minor), ('c', Some(42), None));
        assert!("c 42 rwm".parse::<DeviceCgroupRule>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(s in "\\PC{0,40}") {
            if let Ok(d) = s.parse::<DeviceMapping>() {
                prop_assert!(d.container.is_absolute());
            }
            let _ = s.parse::<DeviceCgroupRule>();
        }
    }
}
