//! One mount of the spec, made whole while detached and attached last: between the two nobody inside can see it without
//! its flags.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::mount_attr::{MOUNT_ATTR_RDONLY, MountAttr, mount_setattr};
use rustix::fs::{FileType, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
};

use super::options::{Attrs, Options};
use super::plan::{Kind, Mount, is_replaceable_in_proc};
use super::procfs::PROC_MAGIC;
use super::resolve::{Place, open_existing, open_or_create, open_or_create_unlinked};
use super::{Error, Plan, Result, cgroup, copy_up, idmap};

/// fsconfig(2) takes no string longer than this, NUL included; an overlay's lowerdir is easily longer.
const FSCONFIG_STRING_MAX: usize = 256;

/// Mounts that become read-only once everything below them has been made.
#[derive(Debug, Default)]
pub(super) struct Deferred(Vec<(PathBuf, OwnedFd)>);

impl Deferred {
    pub(super) fn push(&mut self, destination: &Path, mount: OwnedFd) {
        self.0.push((destination.to_owned(), mount));
    }

    pub(super) fn apply(self) -> Result<()> {
        let read_only = MountAttr {
            set: MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        for (destination, mount) in self.0 {
            mount_setattr(mount.as_fd(), false, &read_only).map_err(|source| Error::Mount {
                what: "tmpfs".into(),
                destination,
                step: "make it read-only".into(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Makes one mount below `root`.
pub(super) fn mount(root: BorrowedFd<'_>, mount: &Mount, plan: &Plan, deferred: &mut Deferred) -> Result<()> {
    match &mount.kind {
        Kind::Bind(_) => bind(root, mount),
        Kind::Remount => remount(root, mount),
        Kind::Cgroup => cgroup::mount(root, mount, plan, deferred),
        Kind::Fs(name) => file_system(root, mount, name, deferred),
    }
}

fn bind(root: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    let cloned;
    let tree = match &mount.tree {
        Some(tree) => tree.as_fd(),
        None => {
            cloned = idmap::clone_source(mount)?;
            cloned.as_fd()
        }
    };
    let stat = fstat(tree).map_err(|e| mount.failed("look at the source", e))?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if mount.destination == Path::new("/proc") {
        let magic = fstatfs(tree)
            .map_err(|e| mount.failed("look at the source", e))?
            .f_type;
        if magic != PROC_MAGIC {
            return Err(Error::Untrusted {
                path: mount.destination.clone(),
                reason: format!("{} is no procfs", mount.source.display()),
            });
        }
    }
    let place = destination(root, mount, if is_dir { Place::Dir } else { Place::File })?;
    apply_attributes(tree, mount)?;
    attach(tree, place.as_fd(), mount)
}

fn remount(root: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    let place = open_existing(root, &mount.destination)?
        .ok_or_else(|| mount.failed("find the mount to change", Errno::NOENT))?;
    if !mount.options.data.is_empty() || !mount.options.superblock.is_empty() {
        let picked = fspick(
            &place,
            "",
            FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH,
        )
        .map_err(|e| mount.failed("open the file system to change it", e))?;
        configure(picked.as_fd(), mount, &mount.options)?;
        fsconfig_reconfigure(&picked)
            .map_err(|e| explained(picked.as_fd(), mount, "change its options", e))?;
    }
    apply_attributes(place.as_fd(), mount)
}

fn file_system(root: BorrowedFd<'_>, mount: &Mount, name: &str, deferred: &mut Deferred) -> Result<()> {
    let place = destination(root, mount, Place::Dir)?;
    if mount
        .options
        .data
        .iter()
        .any(|(_, v)| v.as_ref().is_some_and(|v| v.len() >= FSCONFIG_STRING_MAX))
    {
        return old_style(root, mount, name, place.as_fd());
    }
    let is_tmpfs = name == "tmpfs";
    let fs = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|e| mount.failed(format!("open file system type {name}"), e))?;
    let source = mount.source.as_os_str().as_bytes();
    fsconfig_set_string(&fs, "source", source)
        .map_err(|e| explained(fs.as_fd(), mount, "set its source", e))?;
    if mount.options.is_read_only() && !is_tmpfs && name != "proc" {
        // A disk image may only open read-only; and sysfs of a container's own is then read-only for remounts, too.
        fsconfig_set_flag(&fs, "ro").map_err(|e| explained(fs.as_fd(), mount, "set ro", e))?;
    }
    configure(fs.as_fd(), mount, &mount.options)?;
    if is_tmpfs && !mount.options.has_data("mode") {
        // What the image says of the directory holds for the mount on it, else /tmp would lose its sticky bit.
        let mode = fstat(&place)
            .map_err(|e| mount.failed("look at the directory", e))?
            .st_mode
            & 0o7777;
        fsconfig_set_string(&fs, "mode", format!("{mode:o}"))
            .map_err(|e| explained(fs.as_fd(), mount, "set its mode", e))?;
    }
    fsconfig_create(&fs).map_err(|e| explained(fs.as_fd(), mount, "create the file system", e))?;
    let delayed = is_tmpfs && mount.options.is_read_only();
    let attrs = mount.options.attrs.set & !if delayed { MOUNT_ATTR_RDONLY } else { 0 };
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(attrs).unwrap_or_default());
    let tree = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
        .map_err(|e| explained(fs.as_fd(), mount, "create the mount", e))?;
    if mount.options.copy_up {
        copy_up::copy(place.as_fd(), tree.as_fd()).map_err(|e| Error::Mount {
            what: name.to_owned(),
            destination: mount.destination.clone(),
            step: "copy what the image has there".into(),
            source: e,
        })?;
    }
    propagate(tree.as_fd(), mount)?;
    recursive_attributes(tree.as_fd(), mount)?;
    attach(tree.as_fd(), place.as_fd(), mount)?;
    if delayed {
        deferred.push(&mount.destination, tree);
    }
    Ok(())
}

/// mount(2) for data that fsconfig(2) cannot carry. The target is the descriptor, by the host's `/proc`, which is what `/proc`
/// still is before pivot.
fn old_style(root: BorrowedFd<'_>, mount: &Mount, name: &str, place: BorrowedFd<'_>) -> Result<()> {
    let data: Vec<String> = (mount.options.superblock.iter().map(|f| (*f).to_owned()))
        .chain(mount.options.data.iter().map(|(k, v)| match v {
            Some(v) => format!("{k}={v}"),
            None => k.clone(),
        }))
        .collect();
    let data =
        std::ffi::CString::new(data.join(",")).map_err(|_| mount.failed("set its options", Errno::INVAL))?;
    let target = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = if mount.options.is_read_only() {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    rustix::mount::mount(&mount.source, target, name, flags, Some(data.as_c_str()))
        .map_err(|e| mount.failed("create the file system", e))?;
    let made = open_existing(root, &mount.destination)?
        .ok_or_else(|| mount.failed("find what was mounted", Errno::NOENT))?;
    apply_attributes(made.as_fd(), mount)
}

/// Hands superblock flags and data to the file system.
fn configure(fs: BorrowedFd<'_>, mount: &Mount, options: &Options) -> Result<()> {
    for flag in &options.superblock {
        fsconfig_set_flag(fs, *flag).map_err(|e| explained(fs, mount, format!("set {flag}"), e))?;
    }
    for (key, value) in &options.data {
        match value {
            Some(value) => fsconfig_set_string(fs, key.as_str(), value.as_str())
                .map_err(|e| explained(fs, mount, format!("set {key}={value}"), e))?,
            None => fsconfig_set_flag(fs, key.as_str())
                .map_err(|e| explained(fs, mount, format!("set {key}"), e))?,
        }
    }
    Ok(())
}

/// Opens, creating it if need be, what a mount goes on, and refuses places inside a procfs.
pub(super) fn destination(root: BorrowedFd<'_>, mount: &Mount, kind: Place) -> Result<OwnedFd> {
    let fixed = ["/proc", "/sys", "/dev"]
        .iter()
        .any(|p| mount.destination == Path::new(p));
    let place = if fixed && kind == Place::Dir {
        open_or_create_unlinked(root, &mount.destination)?
    } else {
        open_or_create(root, &mount.destination, kind)?
    };
    refuse_inside_proc(root, place.as_fd(), mount)?;
    Ok(place)
}

/// The plan refused `/proc/…` by name; a link or bind inside the image leads there under another name, which only the
/// descriptor tells (CVE-2019-19921).
fn refuse_inside_proc(root: BorrowedFd<'_>, place: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    if fstatfs(place)
        .map_err(|e| mount.failed("look at the destination", e))?
        .f_type
        != PROC_MAGIC
    {
        return Ok(());
    }
    let real = |fd: BorrowedFd<'_>| -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
    };
    let (root, place) = (real(root), real(place));
    let inside = match (&root, &place) {
        (Ok(root), Ok(place)) => place.strip_prefix(root).ok(),
        _ => None,
    };
    let allowed = inside
        .and_then(|p| p.strip_prefix("proc").ok())
        .is_some_and(|below| {
            is_replaceable_in_proc(below)
                || (below.as_os_str().is_empty() && mount.destination == Path::new("/proc"))
        });
    if allowed {
        return Ok(());
    }
    Err(Error::Untrusted {
        path: mount.destination.clone(),
        reason: "it lies inside a procfs".into(),
    })
}

/// Attributes and propagation, in as few calls as their reach allows.
fn apply_attributes(tree: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    set_attributes(tree, mount, mount.options.attrs, false)?;
    recursive_attributes(tree, mount)?;
    propagate(tree, mount)
}

fn recursive_attributes(tree: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    set_attributes(tree, mount, mount.options.recursive, true)
}

fn set_attributes(tree: BorrowedFd<'_>, mount: &Mount, attrs: Attrs, recursive: bool) -> Result<()> {
    if attrs.is_empty() {
        return Ok(());
    }
    let attr = MountAttr {
        set: attrs.set,
        clear: attrs.clear,
        ..MountAttr::default()
    };
    mount_setattr(tree, recursive, &attr).map_err(|source| Error::Mount {
        what: mount.what(),
        destination: mount.destination.clone(),
        step: "set its flags".into(),
        source,
    })
}

fn propagate(tree: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    for change in &mount.options.propagation {
        let attr = MountAttr {
            propagation: change.mode,
            ..MountAttr::default()
        };
        mount_setattr(tree, change.recursive, &attr).map_err(|source| Error::Propagation {
            path: mount.destination.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Puts a detached tree where `place` is.
pub(super) fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    attach_fd(tree, place).map_err(|e| mount.failed("attach it", e))
}

/// move_mount(2) from one descriptor to another.
pub(super) fn attach_fd(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", place, "", flags)
}

/// The error with what the file system itself says of it; a context's log is read from its descriptor (fsopen(2)).
fn explained(fs: BorrowedFd<'_>, mount: &Mount, step: impl Into<String>, errno: Errno) -> Error {
    let mut step = step.into();
    let mut line = [0_u8; 256];
    while let Ok(n) = rustix::io::read(fs, &mut line) {
        let said = String::from_utf8_lossy(&line[..n]);
        // `e ` errors, `w ` warnings, `i ` informational.
        if let Some(said) = said.strip_prefix("e ") {
            step = format!("{step} ({})", said.trim_end());
        }
        if n == 0 {
            break;
        }
    }
    mount.failed(step, errno)
}

impl Mount {
    fn what(&self) -> String {
        match &self.kind {
            Kind::Fs(name) => name.clone(),
            Kind::Cgroup => "cgroup".into(),
            Kind::Remount => "remount".into(),
            Kind::Bind(_) => self.source.display().to_string(),
        }
    }

    pub(super) fn failed(&self, step: impl Into<String>, errno: Errno) -> Error {
        Error::Mount {
            what: self.what(),
            destination: self.destination.clone(),
            step: step.into(),
            source: errno.into(),
        }
    }
}
