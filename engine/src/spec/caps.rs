//! Capabilities: docker's default set, added to and taken from.

use crate::config::HostConfig;
use crate::error::{Error, Result};

/// By number, `capabilities(7)`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

fn number(text: &str) -> Result<usize> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|n| *n == name)
        .ok_or_else(|| Error::Invalid {
            what: format!("capability {text:?}"),
            why: "no such capability".into(),
        })
}

/// The capabilities a container's root has, as `CAP_…`. What this host's bounding set lacks is left out of the defaults
/// and of `ALL`, and refused by name.
pub(crate) fn effective(host: &HostConfig) -> Result<Vec<String>> {
    let held = |cap: usize| {
        u32::try_from(cap).is_ok_and(|c| berth_sys::credentials::in_bounding_set(c).unwrap_or(false))
    };
    let is_all = |text: &String| text.eq_ignore_ascii_case("all") || text.eq_ignore_ascii_case("cap_all");
    let mut set = [false; NAMES.len()];
    if host.privileged || host.cap_add.iter().any(is_all) {
        set = std::array::from_fn(held);
    } else if !host.cap_drop.iter().any(is_all) {
        for name in DEFAULT {
            let cap = number(name)?;
            set[cap] = held(cap);
        }
    }
    for text in host.cap_drop.iter().filter(|t| !is_all(t)) {
        set[number(text)?] = false;
    }
    for text in host.cap_add.iter().filter(|t| !is_all(t)) {
        let cap = number(text)?;
        if !held(cap) {
            return Err(Error::Invalid {
                what: format!("capability {text:?}"),
                why: "berth itself does not have it, so it cannot be given".into(),
            });
        }
        set[cap] = true;
    }
    Ok((0..NAMES.len())
        .filter(|cap| set[*cap])
        .map(|cap| format!("CAP_{}", NAMES[cap]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(add: &[&str], drop: &[&str]) -> Result<Vec<String>> {
        effective(&HostConfig {
            cap_add: add.iter().map(ToString::to_string).collect(),
            cap_drop: drop.iter().map(ToString::to_string).collect(),
            ..HostConfig::default()
        })
    }

    #[test]
    fn the_default_set_is_dockers_and_never_admin() {
        let set = caps(&[], &[]).unwrap();
        assert!(!set.contains(&"CAP_SYS_ADMIN".to_owned()) && !set.contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(set.len() <= DEFAULT.len());
    }

    #[test]
    fn drop_all_then_add_one() {
        assert_eq!(caps(&["chown"], &["ALL"]).unwrap(), ["CAP_CHOWN"]);
        assert!(caps(&[], &["all"]).unwrap().is_empty());
        assert!(caps(&["CAP_NONSENSE"], &[]).is_err());
    }
}
