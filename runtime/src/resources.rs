//! Limits as the configuration has them, with what every container gets besides.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

/// Devices every container may use whatever its rules say (config-linux.md#default-devices): type, major, minor.
/// `/dev/null zero full random urandom tty console ptmx` and the terminals of its devpts.
const DEFAULT_DEVICES: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Rules that deny all and allow some would take away what the container's own `/dev` is made of, and its terminal.
pub(crate) fn with_default_devices(resources: &LinuxResources) -> LinuxResources {
    let mut resources = resources.clone();
    let Some(rules) = resources.devices_mut().as_mut().filter(|rules| !rules.is_empty()) else {
        return resources;
    };
    for (major, minor) in DEFAULT_DEVICES {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(LinuxDeviceType::C))
            .set_major(Some(major))
            .set_minor(minor)
            .set_access(Some("rwm".to_owned()));
        rules.push(rule);
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_end_with_the_default_devices() {
        let text = r#"{"devices": [{"allow": false, "access": "rwm"}]}"#;
        let given: LinuxResources = serde_json::from_str(text).expect("resources");
        let rules = with_default_devices(&given).devices().clone().expect("rules");
        assert_eq!(rules.len(), 1 + DEFAULT_DEVICES.len());
        assert!(rules[1..].iter().all(LinuxDeviceCgroup::allow));
    }

    #[test]
    fn without_rules_none_are_added() {
        let none = with_default_devices(&LinuxResources::default());
        assert!(none.devices().as_ref().is_none_or(Vec::is_empty));
    }
}
