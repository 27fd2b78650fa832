//! The shared directory as a mount that nobody else has: what the host's kernel refuses there needs no check of ours.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::mount_attr::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MS_PRIVATE, MountAttr,
    mount_setattr,
};
use rustix::fs::{CWD, FileType};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::known::Object;

/// A copy of the mounts at and below `path` that is nowhere in the tree. `..` ends at its root, links lead nowhere, devices
/// do not open, and read-only it refuses every write, whoever asks.
pub(super) fn open(path: &Path, read_only: bool) -> io::Result<Object> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags)?;
    let writes = if read_only { MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = MountAttr {
        set: MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOSYMFOLLOW | writes,
        // What is mounted there later does not appear, and nothing of ours shows elsewhere.
        propagation: MS_PRIVATE,
        ..MountAttr::default()
    };
    mount_setattr(tree.as_fd(), true, &attributes)?;
    let object = Object::of(tree)?;
    match object.kind {
        FileType::Directory => Ok(object),
        FileType::RegularFile => {
            let name = path.file_name().ok_or(Errno::INVAL)?;
            Ok(object.alone(CString::new(name.as_bytes())?))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "it is no directory and no file",
        )),
    }
}
