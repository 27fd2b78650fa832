//! Which cgroup hierarchies this host has mounted.

use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use crate::dir::{Dir, Version};
use crate::error::{Error, Result};

const MOUNT: &str = "/sys/fs/cgroup";

/// How the host arranges its hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One hierarchy per controller (or group of controllers).
    V1,
    /// v1 controllers, and a v2 tree holding whatever v1 left over.
    Hybrid,
    /// One tree with every controller.
    V2,
}

/// A v1 controller, or v1's named hierarchy of systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Devices,
    Freezer,
    Blkio,
    Pids,
    Hugetlb,
    NetCls,
    NetPrio,
    PerfEvent,
    Rdma,
    Misc,
    /// `name=systemd`: where systemd looks for what belongs to a unit.
    Systemd,
}

impl Controller {
    const ALL: [Self; 15] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Devices,
        Self::Freezer,
        Self::Blkio,
        Self::Pids,
        Self::Hugetlb,
        Self::NetCls,
        Self::NetPrio,
        Self::PerfEvent,
        Self::Rdma,
        Self::Misc,
        Self::Systemd,
    ];

    /// Name in v1: directory of the mount and entry of /proc/cgroups.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Blkio => "blkio",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::PerfEvent => "perf_event",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::Systemd => "systemd",
        }
    }

    /// Name in `/proc/PID/cgroup`.
    fn entry(self) -> &'static str {
        match self {
            Self::Systemd => "name=systemd",
            other => other.name(),
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Controllers mounted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ControllerSet(u16);

impl ControllerSet {
    pub(crate) fn contains(self, controller: Controller) -> bool {
        self.0 & controller.bit() != 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Controller> {
        Controller::ALL
            .into_iter()
            .filter(move |known| self.contains(*known))
    }

    pub(crate) fn insert(&mut self, controller: Controller) {
        self.0 |= controller.bit();
    }
}

/// One mounted hierarchy of v1.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) controllers: ControllerSet,
    pub(crate) root: Dir,
    device: u64,
}

/// The host's hierarchies, with their roots open.
#[derive(Debug)]
pub struct Hierarchy {
    layout: Layout,
    pub(crate) v1: Vec<Mount>,
    pub(crate) unified: Option<Dir>,
}

impl Hierarchy {
    /// Looks below `/sys/fs/cgroup`: one `statfs(2)` on a v2 host, one open per controller otherwise. Does not read
    /// `/proc/self/mountinfo`, which grows with every container on the host.
    pub fn detect() -> Result<Self> {
        Self::detect_at(Path::new(MOUNT))
    }

    /// Whether this is a v2 host; one look.
    #[must_use]
    pub fn is_unified() -> bool {
        matches!(Dir::open_mount(Path::new(MOUNT)), Some((_, Version::V2)))
    }

    /// The same without those v1 hierarchies that have none of these controllers, by their v1 names: each takes time to make, enter
    /// and remove a cgroup in. On v2 there is one hierarchy.
    #[must_use]
    pub fn only(mut self, controllers: &[&str]) -> Self {
        let has = |mount: &Mount| {
            mount
                .controllers
                .iter()
                .any(|one| controllers.contains(&one.name()))
        };
        self.v1.retain(has);
        self
    }

    fn detect_at(mount: &Path) -> Result<Self> {
        if let Some((root, Version::V2)) = Dir::open_mount(mount) {
            return Ok(Self {
                layout: Layout::V2,
                v1: Vec::new(),
                unified: Some(root),
            });
        }
        let mut v1: Vec<Mount> = Vec::new();
        for controller in Controller::ALL {
            // Without systemd running nobody reads its hierarchy, and a start saves two system calls.
            if controller == Controller::Systemd && !Path::new("/run/systemd/system").exists() {
                continue;
            }
            let Some((root, Version::V1)) = Dir::open_mount(&mount.join(controller.name())) else {
                continue;
            };
            let stat =
                rustix::fs::statat(root.fd(), "", AtFlags::EMPTY_PATH).map_err(|error| Error::Open {
                    path: root.path().to_owned(),
                    source: error.into(),
                })?;
            // `cpu` and `cpuacct` are links to one mount on most distributions: one hierarchy, entered once.
            match v1.iter_mut().find(|mount| mount.device == stat.st_dev) {
                Some(mount) => mount.controllers.insert(controller),
                None => {
                    let mut controllers = ControllerSet::default();
                    controllers.insert(controller);
                    v1.push(Mount {
                        controllers,
                        root,
                        device: stat.st_dev,
                    });
                }
            }
        }
        let unified = match Dir::open_mount(&mount.join("unified")) {
            Some((root, Version::V2)) => Some(root),
            _ => None,
        };
        match (v1.is_empty(), unified.is_some()) {
            (true, false) => Err(Error::NoHierarchy),
            (true, true) => Ok(Self {
                layout: Layout::V2,
                v1,
                unified,
            }),
            (false, true) => Ok(Self {
                layout: Layout::Hybrid,
                v1,
                unified,
            }),
            (false, false) => Ok(Self {
                layout: Layout::V1,
                v1,
                unified,
            }),
        }
    }

    /// The same, each counted from the cgroup this process is in: what is made there is bound by what binds this process.
    pub fn from_here(self) -> Result<Self> {
        let file = PathBuf::from("/proc/self/cgroup");
        let text = std::fs::read_to_string(&file).map_err(|source| Error::Read { file, source })?;
        let v1 = self.v1.into_iter().map(|mount| {
            let own = own_path(&text, |names| {
                mount
                    .controllers
                    .iter()
                    .any(|controller| names.split(',').any(|name| name == controller.entry()))
            });
            Ok(Mount {
                root: beneath(mount.root, own)?,
                ..mount
            })
        });
        Ok(Self {
            layout: self.layout,
            v1: v1.collect::<Result<_>>()?,
            unified: self
                .unified
                .map(|root| beneath(root, own_path(&text, str::is_empty)))
                .transpose()?,
        })
    }

    /// Names of the cgroups directly below, in one of the hierarchies. Best effort.
    pub fn children(&self) -> Vec<String> {
        let mut roots = self.v1.iter().map(|mount| &mount.root).chain(&self.unified);
        roots.find_map(|root| root.children().ok()).unwrap_or_default()
    }

    /// How the host arranges its hierarchies.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Where a v1 controller is mounted, by the controller's v1 name.
    pub fn mount_of(&self, controller: &str) -> Option<&Path> {
        let controller = Controller::ALL
            .into_iter()
            .find(|known| known.name() == controller)?;
        self.v1
            .iter()
            .find(|mount| mount.controllers.contains(controller))
            .map(|mount| mount.root.path())
    }

    /// Where the v2 tree is mounted.
    pub fn unified_mount(&self) -> Option<&Path> {
        self.unified.as_ref().map(Dir::path)
    }

    /// Every v1 mount point with its controllers' names, for mounting `cgroup` inside a container.
    pub fn v1_mounts(&self) -> Vec<(PathBuf, Vec<&'static str>)> {
        let names = |set: ControllerSet| set.iter().map(Controller::name).collect();
        self.v1
            .iter()
            .map(|mount| (mount.root.path().to_owned(), names(mount.controllers)))
            .collect()
    }
}

/// The path in the line of `/proc/PID/cgroup` whose controllers are those (cgroups(7)), without the first slash.
fn own_path(text: &str, is_it: impl Fn(&str) -> bool) -> Option<&str> {
    text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        is_it(controllers).then(|| path.trim_start_matches('/'))
    })
}

/// The cgroup there. One that lies outside of this process's cgroup namespace has no name here: then the root that does.
fn beneath(root: Dir, path: Option<&str>) -> Result<Dir> {
    match path {
        None | Some("") => Ok(root),
        Some(path) if path.starts_with("..") => Ok(root),
        Some(path) => root.open_below(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_cgroups_are_found_by_their_controllers() {
        let text = "9:name=systemd:/\n4:cpu,cpuacct:/a/b\n0::/unified/c:d\n";
        let of = |name: &str| own_path(text, |names| names.split(',').any(|one| one == name));
        assert_eq!(of("cpuacct"), Some("a/b"));
        assert_eq!(of("name=systemd"), Some(""));
        assert_eq!(of("memory"), None);
        assert_eq!(own_path(text, str::is_empty), Some("unified/c:d"));
    }

    #[test]
    fn directories_that_only_look_like_controllers_are_not_taken() {
        let fake = tempfile::tempdir().unwrap();
        for name in ["memory", "pids", "unified"] {
            std::fs::create_dir(fake.path().join(name)).unwrap();
        }
        assert!(matches!(
            Hierarchy::detect_at(fake.path()),
            Err(Error::NoHierarchy)
        ));
    }

    #[test]
    fn every_controller_has_its_own_bit() {
        let mut seen = ControllerSet::default();
        for controller in Controller::ALL {
            assert!(!seen.contains(controller), "{controller:?}");
            seen.insert(controller);
        }
    }
}
