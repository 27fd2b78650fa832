//! The container's root: EROFS layers below, a writable one above, an overlay of both.
//!
//! ```text
//! /run/berth/layers/N          drive N, read-only
//! /run/berth/scratch           a tmpfs or an ext4 drive: upper, work
//! /run/berth/bundle/rootfs     the overlay
//! ```

use std::ffi::CString;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use super::{directory, drive};
use crate::error::{At, Error, Result};
use crate::layout;
use crate::protocol::Scratch;

pub(super) const SCRATCH: &str = "/run/berth/scratch";

/// mount(2) takes a page of options and drops what is beyond it.
const OPTIONS_MAX: usize = 4095;

pub(super) fn mount_all(layers: &[String], scratch: &Scratch) -> Result<()> {
    if layers.is_empty() {
        return Err(Error::refused("layers", "an image has at least one"));
    }
    let mut lower = Vec::with_capacity(layers.len());
    for (n, serial) in layers.iter().enumerate() {
        let target = PathBuf::from(format!("{}/layers/{n}", layout::RUN));
        directory(&target)?;
        let device = drive::find(serial)?;
        mount(&device, &target, "erofs", MountFlags::RDONLY, None).at("mount layer", serial)?;
        lower.push(target);
    }
    mount_scratch(scratch)?;
    let top = lower.last().expect("there is at least one");
    let (upper, work) = (Path::new(SCRATCH).join("upper"), Path::new(SCRATCH).join("work"));
    prepare(&upper, top)?;
    std::fs::create_dir_all(&work).at("create", work.display().to_string())?;
    directory(Path::new(layout::ROOTFS))?;
    overlay(&lower, &upper, &work)
}

fn mount_scratch(scratch: &Scratch) -> Result<()> {
    directory(Path::new(SCRATCH))?;
    match scratch {
        Scratch::Memory { size } => {
            let size = size.map_or_else(String::new, |bytes| format!(",size={bytes}"));
            let options = CString::new(format!("mode=700{size}")).at("mount", SCRATCH)?;
            mount(
                "scratch",
                SCRATCH,
                "tmpfs",
                MountFlags::empty(),
                options.as_c_str(),
            )
            .at("mount", SCRATCH)
        }
        Scratch::Drive(serial) => {
            let device = drive::find(serial)?;
            mount(&device, SCRATCH, "ext4", MountFlags::empty(), None).at("mount scratch drive", serial)
        }
    }
}

/// The root of the overlay shows the upper directory's owner and mode: they are to be those of the image. A drive that
/// was used before has it already.
fn prepare(upper: &Path, top: &Path) -> Result<()> {
    let name = || upper.display().to_string();
    match std::fs::DirBuilder::new().mode(0o700).create(upper) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(e).at("create", name()),
    }
    let image = std::fs::metadata(top).at("inspect", top.display().to_string())?;
    std::os::unix::fs::chown(upper, Some(image.uid()), Some(image.gid())).at("give away", name())?;
    std::fs::set_permissions(upper, std::fs::Permissions::from_mode(image.mode() & 0o7777))
        .at("set the mode of", name())
}

fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<()> {
    // overlayfs wants the uppermost first. None of these paths holds a colon or a comma.
    let layers: Vec<String> = lower
        .iter()
        .rev()
        .map(|layer| layer.display().to_string())
        .collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layers.join(":"),
        upper.display(),
        work.display()
    );
    if options.len() > OPTIONS_MAX {
        return Err(Error::refused(
            format!("{} layers", lower.len()),
            "more than one overlay takes",
        ));
    }
    let options = CString::new(options).at("mount", layout::ROOTFS)?;
    mount(
        "overlay",
        layout::ROOTFS,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .at("mount", layout::ROOTFS)
}
