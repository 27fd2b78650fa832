//! Where a cgroup lies below the root of its hierarchy.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest path accepted. The kernel limits a cgroup's path to PATH_MAX when it shows it in /proc/PID/cgroup.
const PATH_LEN_MAX: usize = 3072;
/// Longest name of one cgroup, NAME_MAX.
const NAME_LEN_MAX: usize = 255;

/// A checked path relative to a hierarchy's root: at least one name, no `.` or `..`, no control characters.
///
/// Parsed from `linux.cgroupsPath` (runtime-spec config-linux.md#cgroups-path). Absolute and relative paths mean the
/// same thing here, as in runc's cgroupfs driver: from the root of the hierarchy, never from the caller's own cgroup,
/// which on a hybrid host differs by controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Checks `path`.
    pub fn parse(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bad = |reason| Error::Path {
            path: path.to_string_lossy().into_owned(),
            reason,
        };
        let text = path.to_str().ok_or_else(|| bad("is not UTF-8"))?;
        if text.len() > PATH_LEN_MAX {
            return Err(bad("is longer than 3072 bytes"));
        }
        // A newline would forge lines of /proc/PID/cgroup, an escape sequence reaches the operator's terminal.
        if text.chars().any(char::is_control) {
            return Err(bad("holds a control character"));
        }
        let mut names: Vec<&str> = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) if name.len() > NAME_LEN_MAX => {
                    return Err(bad("holds a name longer than 255 bytes"));
                }
                Component::Normal(name) => names.extend(name.to_str()),
                Component::ParentDir => return Err(bad("leaves its hierarchy with ..")),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        if names.is_empty() {
            return Err(bad("names the root of the hierarchy"));
        }
        // `slice:prefix:name` is the systemd driver's form; read as a path it would make a cgroup of that odd name.
        if !text.starts_with('/') && text.matches(':').count() == 2 && !text.contains('/') {
            return Err(bad(
                "is in systemd's slice:prefix:name form, which the cgroupfs driver does not serve",
            ));
        }
        Ok(Self(names.join("/")))
    }

    /// The cgroup of a container whose configuration names none: `/berth-<id>`. Without a parent, which would cost every
    /// start as many directories again.
    pub fn default_for(container_id: &str) -> Result<Self> {
        if container_id.contains('/') {
            return Err(Error::Path {
                path: container_id.to_owned(),
                reason: "is not a single name",
            });
        }
        Self::parse(format!("/berth-{container_id}"))
    }

    /// Relative form: `berth/web`, never empty, no leading slash.
    pub fn relative(&self) -> &str {
        &self.0
    }

    /// The path one level up, `None` directly below the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Every prefix that is a proper ancestor, outermost first: `a`, `a/b` for `a/b/c`.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

impl std::fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}", self.0)
    }
}

impl TryFrom<String> for CgroupPath {
    type Error = Error;
    fn try_from(path: String) -> Result<Self> {
        Self::parse(path)
    }
}

impl From<CgroupPath> for String {
    fn from(path: CgroupPath) -> Self {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn absolute_and_relative_mean_the_same() {
        let path = CgroupPath::parse("/berth/web").unwrap();
        assert_eq!(path, CgroupPath::parse("berth//web/").unwrap());
        assert_eq!(path.to_string(), "/berth/web");
        assert_eq!(path.parent().unwrap().relative(), "berth");
        assert!(path.parent().unwrap().parent().is_none());
    }

    #[test]
    fn refuses_paths_that_leave_or_forge() {
        for bad in [
            "",
            "/",
            ".",
            "/a/../b",
            "..",
            "a\nb",
            "a/\u{1b}[31m",
            "a\0b",
            "system.slice:berth:web",
        ] {
            assert!(CgroupPath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(CgroupPath::parse("x".repeat(256)).is_err());
        assert!(CgroupPath::parse("x/".repeat(1600)).is_err());
        assert!(CgroupPath::default_for("a/b").is_err());
        assert!(serde_json::from_str::<CgroupPath>("\"/a/../../b\"").is_err());
    }

    #[test]
    fn ancestors_outermost_first() {
        let path = CgroupPath::parse("/a/b/c").unwrap();
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
    }

    proptest! {
        #[test]
        fn accepted_paths_are_plain(path in "[a-z./:\\n\u{7f} -]{0,24}") {
            if let Ok(parsed) = CgroupPath::parse(&path) {
                prop_assert!(!parsed.relative().is_empty());
                for name in parsed.relative().split('/') {
                    prop_assert!(!name.is_empty() && name != "." && name != "..");
                    prop_assert!(!name.chars().any(char::is_control));
                }
                prop_assert_eq!(CgroupPath::parse(parsed.to_string()).unwrap(), parsed);
            }
        }
    }
}
