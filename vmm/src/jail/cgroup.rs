//! The cgroup of a machine: made by the keeper, entered by the machine's process, removed when that has ended.

use std::os::fd::BorrowedFd;

use berth_cgroups::{Cgroup, CgroupPath, Entry, Hierarchy};

use crate::error::Result;

/// What names of cgroups begin with that are made below the starter's.
const OURS: &str = "berth-vmm-";
/// Controllers whose hierarchies these are in, where each has one of its own (v1).
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// What follows the number of a process in a name: no machine can be called so.
const UNNAMED: &str = ".vm";

/// Where the cgroup is to be and what is to be written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// From the roots of the hierarchies; unless given, below the cgroup this process is in.
    pub parent: Option<CgroupPath>,
    /// The machine's name; unless given, the number of the process that was started.
    pub name: Option<String>,
    /// Control files and their values, in this order.
    pub files: Vec<(String, String)>,
}

/// A cgroup that is there. Removed when dropped: nobody may be in it then.
pub(crate) struct Group {
    hierarchy: Hierarchy,
    path: CgroupPath,
    cgroup: Option<Cgroup>,
}

impl Placement {
    fn hierarchy(&self) -> Result<Hierarchy> {
        let all = Hierarchy::detect()?;
        Ok(match &self.parent {
            // Somebody may have made it with limits of any kind.
            Some(_) => all,
            None if self.files.is_empty() => all.only(&CONTROLLERS).from_here()?,
            None => all.from_here()?,
        })
    }

    /// Makes the cgroup.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Cgroup`] when somebody is in one of this name, say.
    pub(crate) fn make(&self) -> Result<Group> {
        let hierarchy = self.hierarchy()?;
        let own = format!("{}{UNNAMED}", std::process::id());
        let name = self.name.as_deref().unwrap_or(&own);
        let path = match &self.parent {
            Some(parent) => format!("{parent}/{name}"),
            None => {
                sweep(&hierarchy)?;
                format!("{OURS}{name}")
            }
        };
        let path = CgroupPath::parse(path)?;
        let cgroup = Cgroup::create(&hierarchy, &path, None)?;
        let group = Group {
            hierarchy,
            path,
            cgroup: Some(cgroup),
        };
        for (file, value) in &self.files {
            group.cgroup().set(file, value)?;
        }
        Ok(group)
    }
}

/// Removes what keepers left that were killed. Their cgroups have their numbers.
fn sweep(hierarchy: &Hierarchy) -> Result<()> {
    for name in hierarchy.children() {
        let is_dead = |pid: i32| berth_sys::pidfd::stat(pid).map_or(true, |stat| stat.is_dead());
        let ours = name
            .strip_prefix(OURS)
            .and_then(|name| name.strip_suffix(UNNAMED));
        let pid = ours.and_then(|pid| pid.parse().ok());
        if pid.is_some_and(is_dead) {
            // One that somebody is in stays.
            hierarchy.remove_if_empty(&CgroupPath::parse(name)?);
        }
    }
    Ok(())
}

impl Group {
    fn cgroup(&self) -> &Cgroup {
        self.cgroup.as_ref().expect("it goes when this goes")
    }

    /// What a process needs to enter.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Cgroup`].
    pub(crate) fn entry(&self) -> Result<Entry> {
        Ok(self.cgroup().entry()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that cannot be removed is empty, and taken by the next machine of its name or swept.
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.remove();
        }
        self.hierarchy.remove_made_parents(&self.path);
    }
}

/// Whether a process enters it at its birth: the one cheap way on v2.
pub(crate) fn is_born_into() -> bool {
    Hierarchy::is_unified()
}

/// The directory to be born into.
pub(crate) fn birthplace(entry: Option<&Entry>) -> Option<BorrowedFd<'_>> {
    entry.and_then(Entry::clone_into)
}
