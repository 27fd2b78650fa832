//! A container's files as `cp` and `export` see them, whether it runs or not.
//!
//! ```text
//!            runs                                 does not run: its lock is held until the files are let go
//! cp         /proc/PID/root                       overlay with volumes and binds, in a mount namespace nobody is in
//! export     the root mount of its namespace      overlay alone
//! ```
//!
//! Nothing is mounted where others could see it, and what was goes with its descriptors, also after `kill -9`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount_attr::{MOUNT_ATTR_RDONLY, MS_PRIVATE, MountAttr, mount_setattr, mount_setattr_at};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, open, openat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::config::ContainerConfig;
use crate::container::{State, Status};
use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::flags::MountSpec;
use crate::id::ContainerId;
use crate::isolation::vm;
use crate::paths::Paths;
use crate::{reconcile, record, rootfs, spec};
use berth_copy::Rootfs;

/// Files of one container; while this lives a container that did not run cannot be started or removed.
#[derive(Debug)]
pub struct Files {
    root: Rootfs,
    /// Keeps the mounts below the root: they end with their namespace.
    _namespace: Option<OwnedFd>,
    _lock: Option<record::Lock>,
}

impl Files {
    /// The container's `/`.
    pub fn root(&self) -> &Rootfs {
        &self.root
    }
}

/// What of a container is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    /// All that its processes see.
    Whole,
    /// Its own root, without what is mounted on it.
    Root,
}

impl Engine {
    /// A container's files with its volumes, as `cp` needs them. Waits for a start or another copy that is under way.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] while the restart policy has it between two runs, or a mount that failed.
    pub fn files(&self, id: &ContainerId) -> Result<Files> {
        self.open_files(id, View::Whole)
    }

    /// A container's own root without volumes, `/proc` and other mounts, as `export` needs it.
    ///
    /// # Errors
    ///
    /// As [`Engine::files`].
    pub fn own_files(&self, id: &ContainerId) -> Result<Files> {
        self.open_files(id, View::Root)
    }

    fn open_files(&self, id: &ContainerId, view: View) -> Result<Files> {
        // What runs for it on the host is the monitor, whose root is not the container's.
        vm::refuse(&self.config(id)?, "cp and export")?;
        loop {
            let state = self.state(id)?;
            if let Some(root) = running(&state, view)? {
                return Ok(Files {
                    root,
                    _namespace: None,
                    _lock: None,
                });
            }
            let lock = record::lock(&self.paths, id)?;
            let state = reconcile::locked(&self.paths, id)?;
            let config = record::config(&self.paths, id)?;
            match state.status {
                // It was started while we waited.
                Status::Running | Status::Paused => continue,
                Status::Created | Status::Exited | Status::Dead => {}
                status @ (Status::Restarting | Status::Removing) => {
                    return Err(Error::Wrong {
                        verb: "copy files of",
                        name: config.name.to_string(),
                        status,
                    });
                }
            }
            rootfs::prepare(&self.paths, &config).at("prepare the root of", id.as_str())?;
            let (root, namespace) = match view {
                View::Root => (overlay(&self.paths, &config, true)?, None),
                View::Whole => {
                    let (root, namespace) = in_own_thread(|| assemble(&self.paths, &config))?;
                    (root, Some(namespace))
                }
            };
            return Ok(Files {
                root: Rootfs::of_fd(root),
                _namespace: namespace,
                _lock: Some(lock),
            });
        }
    }
}

/// The root of a running container; none when it does not run, or has ended meanwhile.
fn running(state: &State, view: View) -> Result<Option<Rootfs>> {
    if state.pid <= 0 || !matches!(state.status, Status::Running | Status::Paused) {
        return Ok(None);
    }
    let (path, flags) = match view {
        View::Whole => (
            format!("/proc/{}/root", state.pid),
            OFlags::PATH | OFlags::DIRECTORY,
        ),
        View::Root => (format!("/proc/{}/ns/mnt", state.pid), OFlags::RDONLY),
    };
    let fd = match open(&path, flags | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
        other => other.at("open", &path)?,
    };
    // Asked after the open: the pid was its init's then, and not yet somebody else's.
    let is_init = berth_sys::pidfd::stat(state.pid).is_ok_and(|stat| stat.start_time == state.pid_start);
    if !is_init {
        return Ok(None);
    }
    let root = match view {
        View::Whole => fd,
        // Only who is in a mount namespace may clone a mount of it.
        View::Root => in_mount_namespace(&fd, || {
            let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(CWD, "/", clone).at("clone the root of", &path)
        })?,
    };
    Ok(Some(Rootfs::of_fd(root)))
}

/// Runs `work` in a thread that has entered a mount namespace.
pub(crate) fn in_mount_namespace<T: Send>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    in_own_thread(|| {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .at("enter", "a container's mount namespace")?;
        work()
    })
}

/// Runs `work` in a thread with a working directory and root of its own, which changing a mount namespace takes.
fn in_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            berth_sys::working_directory::unshare().at("leave", "the working directory")?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::io("end", "a thread", Errno::AGAIN)))
    })
}

fn overlay(paths: &Paths, config: &ContainerConfig, read_only: bool) -> Result<OwnedFd> {
    // Who copies runs nothing and opens no device of it.
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    if read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let (upper, work) = (paths.upper(&config.id), paths.work(&config.id));
    rootfs::overlay(&config.image.layers, &upper, &work, attributes)
        .at("mount the root of", config.id.as_str())
}

/// Mounts root, volumes and binds in a new mount namespace; the root and the namespace. The calling thread stays in it.
fn assemble(paths: &Paths, config: &ContainerConfig) -> Result<(OwnedFd, OwnedFd)> {
    berth_sys::credentials::unshare(libc::CLONE_NEWNS).at("make", "a mount namespace")?;
    let private = MountAttr {
        propagation: MS_PRIVATE,
        ..MountAttr::default()
    };
    mount_setattr_at(CWD, c"/", true, &private).at("make private", "/")?;
    let root = overlay(paths, config, false)?;
    // Mounts can only be put on what is itself attached. Nobody needs this directory by its name: overlayfs holds it.
    let place = paths.work(&config.id);
    attach(root.as_fd(), CWD, &place).at("mount on", &place)?;
    rootfs::fill_volumes(paths, config, root.as_fd())?;
    let mut mounts: Vec<&MountSpec> = config.host.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    for mount in mounts {
        if let Some((source, recursive)) = spec::mounts::source(mount, paths)? {
            bind(root.as_fd(), mount, &source, recursive)?;
        }
    }
    if config.host.read_only {
        read_only(root.as_fd(), false).at("make read-only", "/")?;
    }
    let namespace = open(
        "/proc/thread-self/ns/mnt",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at("open", "/proc/thread-self/ns/mnt")?;
    Ok((root, namespace))
}

fn bind(root: BorrowedFd<'_>, mount: &MountSpec, source: &Path, recursive: bool) -> Result<()> {
    let mut clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        clone |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, source, clone).at("open", source)?;
    if mount.read_only {
        read_only(tree.as_fd(), recursive).at("make read-only", source)?;
    }
    let place = place(root, &mount.target, source.is_dir()).at("make a mount point at", &mount.target)?;
    attach(tree.as_fd(), place.as_fd(), Path::new("")).at("mount on", &mount.target)
}

fn read_only(mount: BorrowedFd<'_>, recursive: bool) -> std::io::Result<()> {
    let attr = MountAttr {
        set: MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    mount_setattr(mount, recursive, &attr)
}

/// Attaches a detached mount to a path, or to the descriptor itself when the path is empty.
fn attach(tree: BorrowedFd<'_>, at: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", at, path, flags)
}

/// What a mount goes on, made when the image has nothing there: one component at a time below a directory held open.
fn place(root: BorrowedFd<'_>, path: &Path, is_dir: bool) -> rustix::io::Result<OwnedFd> {
    let find = || berth_sys::open_beneath::open_in_root(root, path, OFlags::PATH, Mode::empty());
    match find() {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let parent: PathBuf = if parent.as_os_str().is_empty() {
        "/".into()
    } else {
        parent.to_owned()
    };
    let parent = place(root, &parent, true)?;
    let made = if is_dir {
        mkdirat(&parent, name, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(&parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => find(),
        Err(e) => Err(e),
    }
}
