//! The last touch, inside: what of the kernel's files the container may not see or change.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount_attr::{MOUNT_ATTR_RDONLY, MountAttr, mount_setattr};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, open_tree,
};

use super::devices::is_null;
use super::mounts::attach_fd;
use super::resolve::open_existing;
use super::{Error, Plan, Result};

/// Paths the engine masks unless told otherwise: kernel memory, keys, timers and sensors that tell of the host or of
/// neighbours (`interrupts` times keystrokes, `powercap` meters power finely enough to leak keys, CVE-2020-8694).
pub const DEFAULT_MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths the engine makes read-only unless told otherwise.
pub const DEFAULT_READONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The per-CPU directories that count thermal throttling, to add to [`DEFAULT_MASKED`]. Their number is the host's.
pub fn thermal_throttle_paths() -> Vec<PathBuf> {
    let Ok(cpus) = std::fs::read_dir("/sys/devices/system/cpu") else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = cpus
        .flatten()
        .filter(|e| {
            let name = e.file_name();
            let digits = name.to_str().and_then(|n| n.strip_prefix("cpu"));
            digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        })
        .map(|e| e.path().join("thermal_throttle"))
        .filter(|p| p.is_dir())
        .collect();
    paths.sort();
    paths
}

/// After pivot: read-only paths, masked paths, rootfsPropagation, read-only root.
///
/// # Errors
/// The step that failed.
pub fn finish(plan: &Plan) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, "/", flags, Mode::empty()).map_err(|e| Error::OpenRoot {
        path: "/".into(),
        source: e.into(),
    })?;
    for path in &plan.read_only_paths {
        make_read_only(root.as_fd(), path)?;
    }
    mask(root.as_fd(), &plan.masked)?;
    if let Some(wanted) = plan.rootfs_propagation {
        let attr = MountAttr {
            propagation: wanted.mode,
            ..MountAttr::default()
        };
        mount_setattr(root.as_fd(), wanted.recursive, &attr).map_err(|source| Error::Propagation {
            path: "/".into(),
            source,
        })?;
    }
    if plan.read_only {
        let attr = MountAttr {
            set: MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        mount_setattr(root.as_fd(), false, &attr)
            .map_err(|source| failed("/", "make it read-only", source))?;
    }
    Ok(())
}

fn failed(path: impl Into<PathBuf>, step: &str, source: impl Into<std::io::Error>) -> Error {
    Error::Mount {
        what: "a mask".into(),
        destination: path.into(),
        step: step.into(),
        source: source.into(),
    }
}

/// The path bound on itself, read-only. One that does not exist has nothing to protect.
fn make_read_only(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let Some(place) = open_existing(root, path)? else {
        return Ok(());
    };
    let tree = clone(place.as_fd(), true).map_err(|e| failed(path, "bind it on itself", e))?;
    let attr = MountAttr {
        set: MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    mount_setattr(tree.as_fd(), false, &attr).map_err(|e| failed(path, "make it read-only", e))?;
    attach_fd(tree.as_fd(), place.as_fd()).map_err(|e| failed(path, "attach it", e))
}

/// Directories get one empty read-only tmpfs between them, files `/dev/null`.
fn mask(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<()> {
    let mut empty: Option<OwnedFd> = None;
    let mut null: Option<OwnedFd> = None;
    for path in paths {
        let Some(place) = open_existing(root, path)? else {
            continue;
        };
        let mode = fstat(&place).map_err(|e| failed(path, "look at it", e))?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::Directory {
            if null.is_none() {
                null = Some(open_null(root)?);
            }
            let Some(null) = &null else { continue };
            let tree = clone(null.as_fd(), false).map_err(|e| failed(path, "clone /dev/null", e))?;
            attach_fd(tree.as_fd(), place.as_fd()).map_err(|e| failed(path, "attach /dev/null", e))?;
            continue;
        }
        match &empty {
            // Cloning an attached mount works since Linux 5.2, a detached one only since 6.15.
            Some(first) => {
                let tree =
                    clone(first.as_fd(), false).map_err(|e| failed(path, "clone the empty directory", e))?;
                attach_fd(tree.as_fd(), place.as_fd())
                    .map_err(|e| failed(path, "attach an empty directory", e))?;
            }
            None => {
                let tree = empty_directory().map_err(|e| failed(path, "make an empty directory", e))?;
                attach_fd(tree.as_fd(), place.as_fd())
                    .map_err(|e| failed(path, "attach an empty directory", e))?;
                empty = Some(tree);
            }
        }
    }
    Ok(())
}

fn empty_directory() -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "nr_inodes", "1")?;
    fsconfig_set_string(&fs, "mode", "0555")?;
    fsconfig_create(&fs)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// The container's `/dev/null`, proved: an image's own file of that name would be mounted writable over what should be
/// hidden (CVE-2025-31133).
fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = Path::new("/dev/null");
    let null = open_existing(root, path)?.ok_or_else(|| failed(path, "find it", Errno::NOENT))?;
    if is_null(null.as_fd()).map_err(|e| failed(path, "look at it", e))? {
        return Ok(null);
    }
    Err(Error::Untrusted {
        path: path.to_owned(),
        reason: "it is not the null device".into(),
    })
}

fn clone(fd: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let recursive = if recursive {
        OpenTreeFlags::AT_RECURSIVE
    } else {
        OpenTreeFlags::empty()
    };
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(fd, "", flags | recursive)
}
