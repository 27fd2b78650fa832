//! init's first file system step: a whole root beside the old one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::mount_attr::{MS_PRIVATE, MountAttr, mount_setattr, mount_setattr_at};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, openat, statx};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::mounts::{self, Deferred, attach_fd};
use super::plan::initial_propagation;
use super::resolve::{self, Place};
use super::{Console, Error, Plan, Result, console, devices};

/// A root built but not yet entered.
#[derive(Debug)]
pub struct Mounted {
    /// The container's `/`.
    pub root: OwnedFd,
    /// Present if `process.terminal` is set.
    pub console: Option<Console>,
}

/// Propagation of `/`, the rootfs as a mount, all mounts in order, devices, links, console. The caller has its own mount
/// namespace and its cgroup; with a user namespace it is root there. Sources and the old root's `/proc` are still reachable.
///
/// # Errors
/// The step that failed. The mount namespace is then half built; drop it.
pub fn setup(plan: &Plan) -> Result<Mounted> {
    // Modes are what the spec says, not what the caller's mask leaves of them.
    let umask = rustix::process::umask(Mode::empty());
    let result = build(plan);
    rustix::process::umask(umask);
    result
}

fn build(plan: &Plan) -> Result<Mounted> {
    let root = enter_propagation(plan)?;
    let mut deferred = Deferred::default();
    for mount in &plan.mounts {
        mounts::mount(root.as_fd(), mount, plan, &mut deferred)?;
    }
    devices::create(root.as_fd(), plan)?;
    let console = if plan.terminal {
        Some(console::open(root.as_fd())?)
    } else {
        None
    };
    if let Some(cwd) = plan.cwd.as_deref().filter(|cwd| *cwd != Path::new("/")) {
        // As runc does. Where it cannot be made, a volume that is read-only for one, entering it says why.
        let _ = resolve::open_or_create(root.as_fd(), cwd, Place::Dir);
    }
    // Last: device nodes and mount points inside a read-only tmpfs had to be made first.
    deferred.apply()?;
    Ok(Mounted { root, console })
}

/// Stops our mounts from reaching the host, then makes the rootfs a mount of its own, as pivot_root(2) needs.
fn enter_propagation(plan: &Plan) -> Result<OwnedFd> {
    let open_root = |source: rustix::io::Errno| Error::OpenRoot {
        path: plan.rootfs.clone(),
        source: source.into(),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match initial_propagation(plan.rootfs_propagation) {
        Some(propagation) => {
            mount_setattr_at(
                CWD,
                c"/",
                true,
                &MountAttr {
                    propagation,
                    ..MountAttr::default()
                },
            )
            .map_err(|source| Error::Propagation {
                path: "/".into(),
                source,
            })?;
        }
        None => {
            let place = openat(CWD, &plan.rootfs, flags, Mode::empty()).map_err(open_root)?;
            make_private(place.as_fd(), &plan.rootfs)?;
        }
    }
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, &plan.rootfs, clone).map_err(open_root)?;
    let place = openat(CWD, &plan.rootfs, flags, Mode::empty()).map_err(open_root)?;
    attach_fd(tree.as_fd(), place.as_fd()).map_err(open_root)?;
    if plan
        .rootfs_propagation
        .is_some_and(|p| initial_propagation(Some(p)).is_none())
    {
        // Ours below a shared rootfs would otherwise appear on the host.
        mount_setattr(
            tree.as_fd(),
            false,
            &MountAttr {
                propagation: MS_PRIVATE,
                ..MountAttr::default()
            },
        )
        .map_err(|source| Error::Propagation {
            path: plan.rootfs.clone(),
            source,
        })?;
    }
    Ok(tree)
}

/// Makes the one mount that holds `dir` private: pivot_root(2) refuses a shared parent, and attaching to one would show on
/// the host. Found by climbing, because only a mount's root can be changed.
fn make_private(dir: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let fail = |e: std::io::Error| Error::Propagation {
        path: path.to_owned(),
        source: e,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(dir, ".", flags, Mode::empty()).map_err(|e| fail(e.into()))?;
    loop {
        let stat = statx(&at, c"", AtFlags::EMPTY_PATH, StatxFlags::empty()).map_err(|e| fail(e.into()))?;
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            let attr = MountAttr {
                propagation: MS_PRIVATE,
                ..MountAttr::default()
            };
            return mount_setattr(at.as_fd(), false, &attr).map_err(fail);
        }
        at = openat(&at, "..", flags, Mode::empty()).map_err(|e| fail(e.into()))?;
    }
}
