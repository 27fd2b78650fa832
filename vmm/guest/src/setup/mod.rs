//! What the container stands on: network, files, layers. Done once, in this order, and undone only by power-off.

mod drive;
mod network;
mod rootfs;

use std::collections::BTreeMap;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::error::{At, Error, Result};
use crate::layout;
use crate::protocol::{Setup, Share};

/// Does all that is asked.
///
/// # Errors
///
/// The step that failed; those before it stay done.
pub fn run(setup: &Setup) -> Result<()> {
    if let Some(name) = &setup.hostname {
        rustix::system::sethostname(name.as_bytes()).at("set host name", name)?;
    }
    network::configure(&setup.interfaces, &setup.routes)?;
    // After the interfaces: some sysctls are one interface's.
    sysctls(&setup.sysctls)?;
    files(&setup.files)?;
    for one in &setup.shares {
        share(one)?;
    }
    rootfs::mount_all(&setup.layers, &setup.scratch)
}

/// Writes everything back and takes the writable file systems away. Best effort: the power goes off next.
pub fn take_down() {
    rustix::fs::sync();
    for target in [layout::ROOTFS, rootfs::SCRATCH] {
        if unmount(target, UnmountFlags::NOFOLLOW).is_err() {
            // Somebody still holds it, or it never was; read-only it is whole on the disk too.
            let _ = rustix::mount::mount_remount(target, MountFlags::RDONLY, "");
        }
    }
}

fn sysctls(wanted: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in wanted {
        // The kernel's own rule (Documentation/admin-guide/sysctl): dots and slashes change places.
        let path: String = key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect();
        if path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(Error::refused(format!("sysctl {key:?}"), "it is no name of one"));
        }
        std::fs::write(Path::new("/proc/sys").join(path), value).at("set sysctl", key)?;
    }
    Ok(())
}

fn files(wanted: &BTreeMap<String, String>) -> Result<()> {
    for (name, content) in wanted {
        one_component("file", name)?;
        let path = layout::file(name);
        directory(Path::new(&path).parent().unwrap_or(Path::new("/")))?;
        std::fs::write(&path, content).at("write", &path)?;
    }
    Ok(())
}

fn share(wanted: &Share) -> Result<()> {
    one_component("share", &wanted.tag)?;
    let target = layout::share(&wanted.tag);
    directory(Path::new(&target))?;
    let flags = if wanted.read_only {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    mount(wanted.tag.as_str(), target.as_str(), "virtiofs", flags, None).at("mount share", &wanted.tag)
}

/// Names become paths below a directory of ours, and nothing else.
pub(crate) fn one_component(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(Error::refused(format!("{what} {name:?}"), "it is no file name"));
    }
    Ok(())
}

fn directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).at("create", path.display().to_string())
}
