//! `--security-opt`.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidFlag;

/// Which filter a container's system calls pass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Seccomp {
    /// berth's default profile.
    #[default]
    Default,
    /// None, because the user said so; never the meaning of an empty value (CVE-2023-2431).
    Unconfined,
    /// A profile's JSON, read when the container was created.
    Profile(String),
}

/// One `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityOpt {
    /// `no-new-privileges[:true|false]`.
    NoNewPrivileges(bool),
    /// `seccomp=unconfined`.
    SeccompUnconfined,
    /// `seccomp=builtin` (also `default`).
    SeccompDefault,
    /// `seccomp=FILE`.
    SeccompFile(PathBuf),
    /// `systempaths=unconfined`: nothing masked or read-only.
    SystemPathsUnconfined,
    /// `apparmor=PROFILE`.
    Apparmor(String),
    /// `label=…`; berth does no SELinux labelling, `disable` is accepted.
    LabelDisable,
}

impl FromStr for SecurityOpt {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: &str| InvalidFlag::new("security option", s, why);
        // docker takes both separators, the colon for old times' sake.
        let (key, value) = match s.split_once('=').or_else(|| s.split_once(':')) {
            Some((key, value)) => (key, Some(value)),
            None => (s, None),
        };
        match (key, value) {
            ("no-new-privileges", None | Some("true")) => Ok(SecurityOpt::NoNewPrivileges(true)),
            ("no-new-privileges", Some("false")) => Ok(SecurityOpt::NoNewPrivileges(false)),
            ("seccomp", Some("unconfined")) => Ok(SecurityOpt::SeccompUnconfined),
            ("seccomp", Some("builtin" | "default")) => Ok(SecurityOpt::SeccompDefault),
            // CVE-2023-2431: an empty profile name must not come to mean no filter.
            ("seccomp", None | Some("")) => Err(bad("seccomp needs 'unconfined', 'builtin' or a file")),
            ("seccomp", Some(file)) => Ok(SecurityOpt::SeccompFile(file.into())),
            ("systempaths", Some("unconfined")) => Ok(SecurityOpt::SystemPathsUnconfined),
            ("apparmor", Some(profile)) if !profile.is_empty() => Ok(SecurityOpt::Apparmor(profile.into())),
            ("label", Some("disable")) => Ok(SecurityOpt::LabelDisable),
            ("label", _) => Err(bad("not supported: SELinux labels")),
            _ => Err(bad(
                "expected no-new-privileges, seccomp=…, systempaths=unconfined, apparmor=… or label=disable",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_seccomp_profile_is_refused() {
        for bad in [
            "seccomp",
            "seccomp=",
            "seccomp:",
            "label=type:x",
            "apparmor=",
            "nonsense",
        ] {
            assert!(bad.parse::<SecurityOpt>().is_err(), "{bad}");
        }
    }

    #[test]
    fn both_separators() {
        assert_eq!(
            "seccomp:unconfined".parse::<SecurityOpt>().unwrap(),
            SecurityOpt::SeccompUnconfined
        );
        assert_eq!(
            "seccomp=/a:b=c".parse::<SecurityOpt>().unwrap(),
            SecurityOpt::SeccompFile("/a:b=c".into())
        );
        assert_eq!(
            "no-new-privileges".parse::<SecurityOpt>().unwrap(),
            SecurityOpt::NoNewPrivileges(true)
        );
    }
}
