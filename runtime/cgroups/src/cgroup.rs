//! A cgroup of ours: made in every hierarchy, entered, limited, read, removed.
//!
//! On v1 and hybrid hosts one [`Cgroup`] stands for a directory of the same path in each v1 hierarchy, plus one in the
//! v2 tree if that tree has something to offer (hugetlb limits or `unified` keys were asked for). A process's v1
//! parents may differ by controller, so the path always counts from the hierarchies' roots.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::hierarchy::{Controller, ControllerSet, Hierarchy, Layout};
use crate::parents;
use crate::path::CgroupPath;

/// Longest wait for a dying process to leave a cgroup that is being removed.
const REMOVE_WAIT_MAX: Duration = Duration::from_millis(500);

/// What must be kept (`state.json`) to find a cgroup again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Layout of the host when the cgroup was made.
    pub layout: Layout,
    /// Path below the hierarchies' roots.
    pub path: CgroupPath,
    /// Directories, by v1 controller; `""` is the v2 tree. For `state` output and other programs to read.
    pub directories: std::collections::BTreeMap<String, PathBuf>,
}

/// The cgroup's directory in one v1 hierarchy.
#[derive(Debug)]
pub(crate) struct V1Dir {
    pub(crate) controllers: ControllerSet,
    pub(crate) dir: Dir,
}

/// An open cgroup.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) layout: Layout,
    pub(crate) path: CgroupPath,
    pub(crate) v1: Vec<V1Dir>,
    pub(crate) unified: Option<Dir>,
}

impl Cgroup {
    /// Makes the cgroup and whatever parents are missing. An existing one is taken only if nothing is in or below it.
    ///
    /// `resources` is only looked at for which hierarchies are needed; [`Cgroup::apply`] sets the limits. On failure the
    /// directories made so far are removed again (parents stay: others may be using them by now).
    pub fn create(
        hierarchy: &Hierarchy,
        path: &CgroupPath,
        resources: Option<&LinuxResources>,
    ) -> Result<Self> {
        let mut making = Making {
            hierarchy,
            path,
            made: Vec::new(),
        };
        let mut cgroup = Self {
            layout: hierarchy.layout(),
            path: path.clone(),
            v1: Vec::new(),
            unified: None,
        };
        for mount in &hierarchy.v1 {
            let dir = making.make(&mount.root)?;
            if mount.controllers.contains(Controller::Cpuset) {
                inherit_cpuset(&mount.root, path, &dir)?;
            }
            cgroup.v1.push(V1Dir {
                controllers: mount.controllers,
                dir,
            });
        }
        if let Some(root) = &hierarchy.unified
            && (cgroup.layout == Layout::V2 || wants_unified(hierarchy, resources))
        {
            let dir = making.make(root)?;
            enable_controllers(root, path, &dir)?;
            cgroup.unified = Some(dir);
        }
        making.made.clear();
        Ok(cgroup)
    }

    /// Opens a cgroup made earlier. Hierarchies in which it is gone are left out; an error if it is gone from all.
    pub fn open(hierarchy: &Hierarchy, path: &CgroupPath) -> Result<Self> {
        let mut cgroup = Self {
            layout: hierarchy.layout(),
            path: path.clone(),
            v1: Vec::new(),
            unified: None,
        };
        let mut missing = None;
        for mount in &hierarchy.v1 {
            match present(mount.root.open_below(path.relative()), &mut missing)? {
                Some(dir) => cgroup.v1.push(V1Dir {
                    controllers: mount.controllers,
                    dir,
                }),
                None => continue,
            }
        }
        if let Some(root) = &hierarchy.unified {
            cgroup.unified = present(root.open_below(path.relative()), &mut missing)?;
        }
        match missing {
            Some(error) if cgroup.v1.is_empty() && cgroup.unified.is_none() => Err(error),
            _ => Ok(cgroup),
        }
    }

    /// What to keep so that [`Cgroup::open`] finds it again.
    pub fn saved(&self) -> Saved {
        let mut directories = std::collections::BTreeMap::new();
        for entry in &self.v1 {
            for controller in entry.controllers.iter() {
                directories.insert(controller.name().to_owned(), entry.dir.path().to_owned());
            }
        }
        if let Some(dir) = &self.unified {
            directories.insert(String::new(), dir.path().to_owned());
        }
        Saved {
            layout: self.layout,
            path: self.path.clone(),
            directories,
        }
    }

    /// Path below the hierarchies' roots.
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// How the host arranges its hierarchies.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Removes the cgroup and everything below it, bottom up, in every hierarchy. Waits up to half a second for dying
    /// processes. A cgroup already gone is no error.
    pub fn remove(self) -> Result<()> {
        for dir in self.v1.iter().map(|entry| &entry.dir).chain(&self.unified) {
            remove_tree(dir)?;
        }
        Ok(())
    }

    /// The v1 directory of `controller`.
    pub(crate) fn v1_dir(&self, controller: Controller) -> Option<&Dir> {
        self.v1
            .iter()
            .find(|entry| entry.controllers.contains(controller))
            .map(|entry| &entry.dir)
    }

    /// The v1 directory of `controller`, or the error that says which setting needed it.
    pub(crate) fn v1_dir_for(&self, controller: Controller, setting: &'static str) -> Result<&Dir> {
        self.v1_dir(controller).ok_or_else(|| Error::NoController {
            setting,
            controller: controller.name(),
            path: self.display_path(),
        })
    }

    /// The v2 directory if it holds `probe`, a file of the controller that carries `setting`.
    pub(crate) fn v2_dir_for(
        &self,
        controller: &'static str,
        probe: &str,
        setting: &'static str,
    ) -> Result<&Dir> {
        self.unified
            .as_ref()
            .filter(|dir| dir.has(probe))
            .ok_or_else(|| Error::NoController {
                setting,
                controller,
                path: self.display_path(),
            })
    }

    /// A directory that stands for the whole cgroup in messages.
    pub(crate) fn display_path(&self) -> PathBuf {
        match (&self.unified, self.v1.first()) {
            (Some(dir), _) => dir.path().to_owned(),
            (None, Some(entry)) => entry.dir.path().to_owned(),
            (None, None) => PathBuf::from(self.path.to_string()),
        }
    }
}

impl Hierarchy {
    /// Removes the cgroup at `path` from every hierarchy where nothing is in or below it: for a parent (`/berth`) whose
    /// last child is gone. Says whether it is gone from all.
    pub fn remove_if_empty(&self, path: &CgroupPath) -> bool {
        let roots = self.v1.iter().map(|mount| &mount.root).chain(&self.unified);
        let mut gone = true;
        // Every hierarchy is tried, also after one has refused.
        for root in roots {
            gone &= root.remove_below(path.relative()).is_ok();
        }
        gone
    }
}

/// Directories made so far, removed again unless creation succeeds.
struct Making<'a> {
    hierarchy: &'a Hierarchy,
    path: &'a CgroupPath,
    made: Vec<PathBuf>,
}

impl Making<'_> {
    fn make(&mut self, root: &Dir) -> Result<Dir> {
        let relative = self.path.relative();
        let failed = |source| Error::Create {
            path: root.path().join(relative),
            source,
        };
        // The parent nearly always exists. A parent somebody removes as empty in between is simply made again.
        let mut made = root.make_below(relative);
        for _ in 0..8 {
            if !matches!(&made, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                break;
            }
            for ancestor in self.path.ancestors() {
                match root.make_below(ancestor) {
                    Ok(true) => parents::mark(root, ancestor),
                    Ok(false) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) => return Err(failed(error)),
                }
            }
            made = root.make_below(relative);
        }
        let is_new = made.map_err(failed)?;
        if is_new {
            self.made.push(root.path().to_owned());
        }
        let dir = root.open_below(relative)?;
        if !is_new {
            let processes = dir.process_ids()?.len();
            let children = dir.children()?.len();
            if processes > 0 || children > 0 {
                return Err(Error::InUse {
                    path: dir.path().to_owned(),
                    processes,
                    children,
                });
            }
        }
        Ok(dir)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let roots = self
            .hierarchy
            .v1
            .iter()
            .map(|mount| &mount.root)
            .chain(&self.hierarchy.unified);
        for root in roots.filter(|root| self.made.iter().any(|made| made == root.path())) {
            // Creation already failed with the error that matters.
            let _ = root.remove_below(self.path.relative());
        }
    }
}

/// A new v1 cpuset is empty, and a task that enters it gets ENOSPC: every level takes over its parent's sets.
fn inherit_cpuset(root: &Dir, path: &CgroupPath, leaf: &Dir) -> Result<()> {
    if !leaf.read("cpuset.cpus")?.is_empty() && !leaf.read("cpuset.mems")?.is_empty() {
        return Ok(());
    }
    let mut cpus = root.read("cpuset.cpus")?;
    let mut mems = root.read("cpuset.mems")?;
    let mut fill = |dir: &Dir| -> Result<()> {
        for (file, inherited) in [("cpuset.cpus", &mut cpus), ("cpuset.mems", &mut mems)] {
            let own = dir.read(file)?;
            if own.is_empty() {
                dir.write(file, inherited)?;
            } else {
                *inherited = own;
            }
        }
        Ok(())
    };
    for ancestor in path.ancestors() {
        fill(&root.open_below(ancestor)?)?;
    }
    fill(leaf)
}

/// Whether something is asked for that only the v2 tree of a hybrid host can give.
fn wants_unified(hierarchy: &Hierarchy, resources: Option<&LinuxResources>) -> bool {
    let Some(resources) = resources else { return false };
    let hugetlb = resources
        .hugepage_limits()
        .as_ref()
        .is_some_and(|limits| !limits.is_empty())
        && !hierarchy
            .v1
            .iter()
            .any(|mount| mount.controllers.contains(Controller::Hugetlb));
    hugetlb
        || resources
            .unified()
            .as_ref()
            .is_some_and(|unified| !unified.is_empty())
}

/// Hands every controller of the tree down to `leaf`. Best effort: a controller that cannot be had is an error only
/// once a setting needs it, and that error names the setting.
fn enable_controllers(root: &Dir, path: &CgroupPath, leaf: &Dir) -> Result<()> {
    let available = root.read("cgroup.controllers")?;
    let missing = |dir: &Dir| -> Result<Vec<String>> {
        let present = dir.read("cgroup.controllers")?;
        let lacks = |name: &&str| !present.split_ascii_whitespace().any(|other| other == *name);
        Ok(available
            .split_ascii_whitespace()
            .filter(lacks)
            .map(|name| format!("+{name}"))
            .collect())
    };
    if missing(leaf)?.is_empty() {
        return Ok(());
    }
    let enable = |parent: &Dir, child: &Dir| -> Result<()> {
        let wanted = missing(child)?;
        // All in one write is one pass over the subtree; if one controller is refused, the others are taken singly.
        if !wanted.is_empty()
            && parent
                .try_write("cgroup.subtree_control", &wanted.join(" "))
                .is_err()
        {
            for one in &wanted {
                let _ = parent.try_write("cgroup.subtree_control", one);
            }
        }
        Ok(())
    };
    let mut parent: Option<Dir> = None;
    for ancestor in path.ancestors() {
        let child = root.open_below(ancestor)?;
        enable(parent.as_ref().unwrap_or(root), &child)?;
        parent = Some(child);
    }
    enable(parent.as_ref().unwrap_or(root), leaf)
}

/// Bottom up. EBUSY means children, or processes that were killed and have not quite gone.
fn remove_tree(dir: &Dir) -> Result<()> {
    let failed = |source: io::Error| Error::Remove {
        path: dir.path().to_owned(),
        source,
    };
    let parent_path = dir
        .path()
        .parent()
        .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let name = dir.path().file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let parent = match Dir::open_mount(parent_path) {
        Some((parent, _)) => parent,
        // Not a cgroup directory any more: gone together with its parent.
        None if !parent_path.exists() => return Ok(()),
        None => {
            return Err(Error::NotCgroupfs {
                path: parent_path.to_owned(),
            });
        }
    };
    let deadline = Instant::now() + REMOVE_WAIT_MAX;
    let mut pause = Duration::from_micros(500);
    loop {
        match parent.remove_below(name) {
            Ok(_) => return Ok(()),
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(failed(error)),
            Err(_) => {}
        }
        for child in dir.children()? {
            match dir.open_below(&child) {
                Ok(child) => remove_tree(&child)?,
                Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if Instant::now() >= deadline {
            return Err(Error::Busy {
                path: dir.path().to_owned(),
                pids: dir.process_ids().unwrap_or_default(),
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Keeps the first "not there" aside and passes other errors on.
fn present(result: Result<Dir>, missing: &mut Option<Error>) -> Result<Option<Dir>> {
    match result {
        Ok(dir) => Ok(Some(dir)),
        Err(error) => match &error {
            Error::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                missing.get_or_insert(error);
                Ok(None)
            }
            _ => Err(error),
        },
    }
}
