//! The container's own cgroups at a mount of type `cgroup`, whatever the host has: v1 and hybrid as a directory with one
//! hierarchy each, v2 directly.
//!
//! Only the container's part of each tree is mounted, also without a cgroup namespace, so the host's slices are out of reach
//! (CVE-2023-25809); and read-only unless the spec says `rw`, for whoever can write a v1 root's `release_agent` owns
//! the host (CVE-2022-0492).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount_attr::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr, mount_setattr,
};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::mounts::{Deferred, attach, attach_fd, destination};
use super::plan::Mount;
use super::resolve::Place;
use super::{Plan, Result};

/// One hierarchy as the host mounts it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// `cpu,cpuacct`, `name=systemd`, or empty for v2.
    controllers: String,
    /// Where the host has it.
    point: PathBuf,
    /// The caller's cgroup, from the root that `point` shows.
    own: PathBuf,
}

impl Hierarchy {
    fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Its directory in the container.
    fn directory(&self) -> &str {
        if self.is_v2() {
            return "unified";
        }
        self.controllers
            .strip_prefix("name=")
            .unwrap_or(&self.controllers)
    }
}

pub(super) fn mount(root: BorrowedFd<'_>, mount: &Mount, plan: &Plan, deferred: &mut Deferred) -> Result<()> {
    let read = |path: &str| {
        std::fs::read_to_string(path).map_err(|e| mount.failed(format!("read {path}"), errno(&e)))
    };
    // As a thread's: the same as the process's for init, which has one.
    let all = hierarchies(&read("/proc/thread-self/cgroup")?, &read("/proc/self/mountinfo")?);
    let place = destination(root, mount, Place::Dir)?;
    let attrs = mount.options.attrs.set
        | MOUNT_ATTR_NOSUID
        | MOUNT_ATTR_NODEV
        | MOUNT_ATTR_NOEXEC
        | if mount.options.is_read_write() {
            0
        } else {
            MOUNT_ATTR_RDONLY
        };
    if let [only] = all.as_slice()
        && only.is_v2()
    {
        return attach(tree(only, plan, attrs, mount)?.as_fd(), place.as_fd(), mount);
    }
    if all.is_empty() {
        return Err(mount.failed("find the host's cgroups", Errno::NOENT));
    }
    let base = tmpfs().map_err(|e| mount.failed("create the directory of hierarchies", e))?;
    attach(base.as_fd(), place.as_fd(), mount)?;
    for hierarchy in &all {
        let name = hierarchy.directory();
        let fail = |step: &str| {
            let step = format!("{step} {name}");
            move |e: Errno| mount.failed(step, e)
        };
        mkdirat(&base, name, Mode::from_raw_mode(0o755)).map_err(fail("create directory"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let on = openat(&base, name, flags, Mode::empty()).map_err(fail("open directory"))?;
        let tree = tree(hierarchy, plan, attrs, mount)?;
        attach_fd(tree.as_fd(), on.as_fd()).map_err(fail("attach"))?;
        // Controllers mounted together are also looked for by their single names.
        if name.contains(',') {
            for single in name.split(',') {
                symlinkat(name, &base, single).map_err(fail("link"))?;
            }
        }
    }
    if attrs & MOUNT_ATTR_RDONLY != 0 {
        deferred.push(&mount.destination, base);
    }
    Ok(())
}

/// The container's part of one hierarchy, detached, flags set.
fn tree(hierarchy: &Hierarchy, plan: &Plan, attrs: u64, mount: &Mount) -> Result<OwnedFd> {
    let fail = |step: &str| {
        let step = format!("{step} {}", hierarchy.directory());
        move |e: Errno| mount.failed(step, e)
    };
    if plan.cgroup_namespace {
        // A new mount shows the namespace's root, which is the container's cgroup.
        let name = if hierarchy.is_v2() { "cgroup2" } else { "cgroup" };
        let fs = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("open"))?;
        fsconfig_set_string(&fs, "source", "cgroup").map_err(fail("name"))?;
        for word in hierarchy.controllers.split(',').filter(|w| !w.is_empty()) {
            match word.split_once('=') {
                Some((key, value)) => {
                    fsconfig_set_flag(&fs, "none").map_err(fail("select"))?;
                    fsconfig_set_string(&fs, key, value).map_err(fail("select"))?;
                }
                None => fsconfig_set_flag(&fs, word).map_err(fail("select"))?,
            }
        }
        fsconfig_create(&fs).map_err(fail("create"))?;
        let flags = MountAttrFlags::from_bits_retain(u32::try_from(attrs).unwrap_or_default());
        return fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(fail("mount"));
    }
    let own = hierarchy.own.strip_prefix("/").unwrap_or(&hierarchy.own);
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree =
        open_tree(CWD, hierarchy.point.join(own), clone).map_err(fail("open the container's cgroup of"))?;
    mount_setattr(
        tree.as_fd(),
        false,
        &MountAttr {
            set: attrs,
            ..MountAttr::default()
        },
    )
    .map_err(|e| fail("set the flags of")(errno(&e)))?;
    Ok(tree)
}

fn tmpfs() -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "mode", "755")?;
    fsconfig_create(&fs)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// Joins `/proc/PID/cgroup` (which hierarchies, and where the process is) with mountinfo (where the host has them).
fn hierarchies(cgroups: &str, mountinfo: &str) -> Vec<Hierarchy> {
    let mounts: Vec<(&str, &str, &str, &str)> = mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (shown, point) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let kind = right.next()?;
            let options = right.nth(1)?;
            matches!(kind, "cgroup" | "cgroup2").then_some((kind, options, shown, point))
        })
        .collect();
    let mut found = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let is_v2 = id == "0" && controllers.is_empty();
        let mount = mounts.iter().find(|(kind, options, _, _)| {
            if is_v2 {
                *kind == "cgroup2"
            } else {
                *kind == "cgroup" && controllers.split(',').all(|c| options.split(',').any(|o| o == c))
            }
        });
        if let Some((_, _, shown, point)) = mount {
            let path = Path::new(path);
            found.push(Hierarchy {
                controllers: controllers.to_owned(),
                point: PathBuf::from(point),
                own: path.strip_prefix(shown).unwrap_or(path).to_owned(),
            });
        }
    }
    found
}

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hosts_give_each_hierarchy_its_place() {
        let cgroups = "3:name=systemd:/\n2:memory:/a/b\n1:cpu,cpuacct:/c\n0::/u\n";
        let mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct\n\
            35 31 0:32 /a /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = hierarchies(cgroups, mountinfo);
        let names: Vec<&str> = found.iter().map(Hierarchy::directory).collect();
        assert_eq!(names, ["systemd", "memory", "cpu,cpuacct", "unified"]);
        assert_eq!(found[1].own, Path::new("b"), "below what the host's mount shows");
        assert_eq!(found[2].own, Path::new("c"));
    }

    #[test]
    fn unmounted_hierarchies_are_left_out() {
        assert_eq!(
            hierarchies("5:pids:/x\n0::/\nnonsense\n", "1 2 0:3 / / rw - ext4 /dev/a rw\n"),
            []
        );
    }
}
