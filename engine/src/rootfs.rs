//! A container's root: its image's layers and its writable one as an overlay.
//!
//! Layers go in one by one through the new mount API (`fsconfig(2)` with `lowerdir+`, Linux 6.5), so that a page of mount
//! options is no bound on their number; where the kernel lacks it, layers are named relative to descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount as umount,
};
use rustix::process::chdir;

use crate::config::ContainerConfig;
use crate::error::{Error, Result};
use crate::flags::MountKind;
use crate::paths::Paths;
use crate::volumes::Volumes;

/// A detached overlay mount over `layers`, lowest first.
pub fn overlay(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    // overlayfs wants the uppermost first.
    let lower: Vec<&Path> = layers.iter().rev().map(PathBuf::as_path).collect();
    let context = created(&lower, upper, work)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The context of a created overlay over `lower`, uppermost first.
pub(crate) fn created(lower: &[&Path], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    match create_by_layer(lower, upper, work) {
        // Before Linux 6.5 the option is taken like any other, and refused when the superblock is made.
        Err(Errno::INVAL) => create_by_descriptor(lower, upper, work),
        done => done,
    }
}

fn create_by_layer(lower: &[&Path], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for layer in lower {
        fsconfig_set_string(&context, "lowerdir+", *layer)?;
    }
    create_writable(context, upper, work)
}

/// fsconfig(2) takes no string longer than 255 bytes, so the layers are named by descriptor alone, `12:13`, relative to a
/// thread's own working directory: enough for some sixty.
fn create_by_descriptor(lower: &[&Path], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    let layers = lower
        .iter()
        .map(|layer| {
            open(
                *layer,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        })
        .collect::<rustix::io::Result<Vec<_>>>()?;
    let names: Vec<_> = layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    let create = || {
        berth_sys::working_directory::unshare()?;
        chdir("/proc/self/fd")?;
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", "overlay")?;
        fsconfig_set_string(&context, "lowerdir", names.join(":"))?;
        create_writable(context, upper, work)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(create);
        thread.join().unwrap_or(Err(Errno::AGAIN))
    })
}

fn create_writable(context: OwnedFd, upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_create(&context)?;
    Ok(context)
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

/// Copies what the image has where volumes go into those that are still empty. `root` is the container's, with nothing
/// mounted on it yet.
pub(crate) fn fill_volumes(paths: &Paths, config: &ContainerConfig, root: BorrowedFd<'_>) -> Result<()> {
    let volumes = Volumes::new(&paths.root);
    for mount in &config.host.mounts {
        if let MountKind::Volume {
            name: Some(name),
            nocopy: false,
        } = &mount.kind
        {
            volumes
                .fill(name, root, &mount.target)
                .map_err(|e| Error::Volume {
                    name: name.clone(),
                    source: Box::new(e),
                })?;
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
        MountAttrFlags::empty(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_named_by_descriptor_are_stacked_in_order() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["low", "high", "upper", "work"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for name in ["low", "high"] {
            std::fs::write(at(name).join("both"), name).unwrap();
            std::fs::write(at(name).join(name), "").unwrap();
        }
        let context = create_by_descriptor(&[&at("high"), &at("low")], &at("upper"), &at("work")).unwrap();
        let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let root = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
        assert_eq!(std::fs::read_to_string(root.join("both")).unwrap(), "high");
        assert!(root.join("low").exists() && root.join("high").exists());
    }
}
