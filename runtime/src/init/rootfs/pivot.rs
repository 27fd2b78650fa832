//! Making the built root the only one.

use std::io;
use std::os::fd::AsFd;

use berth_sys::mount_attr::{MS_SLAVE, MountAttr, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, mount_move, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::mounts::attach_fd;
use super::plan::initial_propagation;
use super::{Error, Mounted, Plan, Result};

/// Makes the built root `/` and detaches all else. `no_pivot` moves the mount and changes root instead, for hosts
/// whose `/` is a ramfs; root in the container can then get out, as the flag's users know. The working directory is `/`
/// afterwards.
///
/// # Errors
/// [`Error::Pivot`].
pub fn pivot(plan: &Plan, mounted: &Mounted, no_pivot: bool) -> Result<()> {
    if no_pivot {
        change_root(plan, mounted)
    } else {
        swap_roots(plan, mounted)
    }
}

pub(super) fn fail<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> Error {
    move |e| Error::Pivot {
        operation,
        source: e.into(),
    }
}

fn swap_roots(plan: &Plan, mounted: &Mounted) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = openat(CWD, "/", flags, Mode::empty()).map_err(fail("keep the old root, to move"))?;
    fchdir(&mounted.root).map_err(fail("move"))?;
    // pivot_root(2): both the same directory stacks the old root on the new one, so no place for it is needed.
    pivot_root(".", ".").map_err(fail("pivot"))?;
    fchdir(&old).map_err(fail("return to the old root, moving"))?;
    if initial_propagation(plan.rootfs_propagation).is_none() {
        // Else the unmount below would reach the host's own mounts.
        let slave = MountAttr {
            propagation: MS_SLAVE,
            ..MountAttr::default()
        };
        mount_setattr(old.as_fd(), true, &slave).map_err(fail("cut the old root's propagation, to move"))?;
    }
    unmount(".", UnmountFlags::DETACH).map_err(fail("detach the old root, to move"))?;
    chdir("/").map_err(fail("move"))
}

fn change_root(plan: &Plan, mounted: &Mounted) -> Result<()> {
    hide_host_kernel_files(plan)?;
    fchdir(&mounted.root).map_err(fail("move"))?;
    mount_move(".", "/").map_err(fail("move the mount"))?;
    chroot(".").map_err(fail("change root"))?;
    chdir("/").map_err(fail("move"))
}

/// The old root stays below the moved one. Its procfs and sysfs would be a fully visible instance that lets a user namespace
/// inside mount unmasked ones, so they go; where they are locked, an empty tmpfs hides them.
fn hide_host_kernel_files(plan: &Plan) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(fail("list mounts, to move"))?;
    let below = plan.rootfs.as_os_str().to_string_lossy();
    for line in table.lines().rev() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        if !matches!(right.split(' ').next(), Some("proc" | "sysfs")) {
            continue;
        }
        let Some(point) = left.split(' ').nth(4) else {
            continue;
        };
        if point == below
            || point
                .strip_prefix(&*below)
                .is_some_and(|rest| rest.starts_with('/'))
        {
            continue;
        }
        match unmount(point, UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::PERM) => cover(point)?,
            Err(e) => return Err(fail("unmount the host's proc and sys, to move")(e)),
        }
    }
    Ok(())
}

fn cover(point: &str) -> Result<()> {
    (|| {
        let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&fs)?;
        let tree = rustix::mount::fsmount(
            &fs,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )?;
        let place = openat(CWD, point, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        attach_fd(tree.as_fd(), place.as_fd())
    })()
    .map_err(fail("cover the host's proc and sys, to move"))
}
