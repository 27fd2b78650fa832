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

#[cfg(test)]
mod tests {
    use super::*;

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
