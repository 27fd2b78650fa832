//! `--ipc container:NAME`: the `/dev/shm` of another container, which is a mount of a namespace we are not in.
//!
//! Only who is in a mount namespace may clone a mount of it, and a bind's source must be a path of ours: so it is cloned
//! in there, put beside the root while the container is made, and taken away once the container has its own copy.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::config::ContainerConfig;
use crate::error::{At, Result};
use crate::files::in_mount_namespace;
use crate::flags::IpcMode;
use crate::id::ContainerId;
use crate::paths::Paths;
use crate::{rootfs, spec};

/// Where a borrowed one is while the container is made.
pub(crate) fn place(paths: &Paths, id: &ContainerId) -> PathBuf {
    paths.bundle(id).join("shm")
}

/// Puts the other container's there; nothing when the IPC namespace is no other container's.
pub(crate) fn borrow(paths: &Paths, config: &ContainerConfig) -> Result<()> {
    let IpcMode::Container(other) = &config.host.ipc else {
        return Ok(());
    };
    let tree = clone_of(paths, other)?;
    let place = place(paths, &config.id);
    std::fs::create_dir_all(&place).at("create", &place)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, "", CWD, &place, flags).at("mount on", &place)
}

fn clone_of(paths: &Paths, other: &str) -> Result<OwnedFd> {
    let pid = spec::namespaces::pid_of(paths, other)?;
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at("open", &path)?;
    // Asked again after the open: it was its namespace, not that of a process that came after it.
    spec::namespaces::pid_of(paths, other)?;
    in_mount_namespace(&namespace, || {
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, "/dev/shm", clone).at("clone /dev/shm of", other)
    })
}

/// Takes it away; fine when there is none.
pub(crate) fn give_back(paths: &Paths, id: &ContainerId) -> std::io::Result<()> {
    rootfs::unmount(&place(paths, id))
}
