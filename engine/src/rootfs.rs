//! A container's root: its image's layers and its writable one as an overlay.
//!
//! Layers go in one by one through the new mount API (`fsconfig(2)` with `lowerdir+`, Linux 6.5), so that a page of mount
//! options is no bound on their number; where the kernel lacks it, layers are named relative to descriptors.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount as umount,
};

use crate::config::ContainerConfig;
use crate::paths::Paths;

/// A detached overlay mount over `layers`, lowest first.
pub fn overlay(layers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    // overlayfs wants the uppermost first.
    for layer in layers.iter().rev() {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    // Containers are torn down by removing the upper directory, never by reading it after a power cut.
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

/// Makes the writable layer's directories, once. The root of the overlay shows the upper directory's mode.
pub fn prepare(paths: &Paths, config: &ContainerConfig) -> io::Result<()> {
    let (upper, work) = (paths.upper(&config.id), paths.work(&config.id));
    for dir in [&upper, &work] {
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        }
        if dir == &upper {
            let (mode, uid, gid) = config.image.layers.last().map_or(Ok((0o755, 0, 0)), |top| {
                use std::os::unix::fs::MetadataExt;
                std::fs::metadata(top).map(|m| (m.mode() & 0o7777, m.uid(), m.gid()))
            })?;
            std::os::unix::fs::chown(dir, Some(uid), Some(gid))?;
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// Mounts a container's root at `target`, which exists.
pub fn mount(paths: &Paths, config: &ContainerConfig, target: &Path) -> io::Result<()> {
    prepare(paths, config)?;
    let tree = overlay(
        &config.image.layers,
        &paths.upper(&config.id),
        &paths.work(&config.id),
    )?;
    Ok(move_mount(
        &tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Takes the mount away; fine when there is none.
pub fn unmount(target: &Path) -> io::Result<()> {
    match umount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
