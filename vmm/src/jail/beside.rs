//! What a jail is made of and takes the kernel long: made on a thread of its own, while the machine is built.
//!
//! A network namespace alone is half a millisecond of a start, and to leave the host's mounts is to wait for all processors. The
//! thread leaves the host for them, and opens them for the one that is to follow.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use berth_sys::credentials;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};

use super::failed;
use crate::error::{Error, Result};

/// Namespaces and a root, when they are ready.
pub(crate) struct Beside(JoinHandle<io::Result<Ready>>);

/// What nobody is in yet.
pub(super) struct Ready(Vec<OwnedFd>);

impl Beside {
    /// Begins. `network`: with a network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] without a thread.
    pub(super) fn begin(network: bool) -> Result<Beside> {
        let thread = std::thread::Builder::new().name("jail".into());
        let making = thread.spawn(move || make(network));
        making.map(Beside).map_err(|source| Error::Events {
            operation: "start a thread",
            source,
        })
    }

    /// Waits for them; the thread is gone then.
    ///
    /// # Errors
    ///
    /// [`Error::Jail`].
    pub(super) fn ready(self) -> Result<Ready> {
        let made = self.0.join().expect("making them does not panic");
        made.map_err(failed("leave the host's namespaces"))
    }
}

impl Ready {
    /// Takes the calling thread into the namespaces; root and working directory are the empty one of theirs.
    pub(super) fn enter(&self) -> io::Result<()> {
        for namespace in &self.0 {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None)?;
        }
        Ok(())
    }
}

fn make(network: bool) -> io::Result<Ready> {
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let mut names = vec!["mnt", "ipc", "uts"];
    if network {
        flags |= libc::CLONE_NEWNET;
        names.push("net");
    }
    credentials::unshare(flags)?;
    let open = |name: &str| {
        let path = format!("/proc/thread-self/ns/{name}");
        rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    };
    let namespaces = names.into_iter().map(open).collect::<rustix::io::Result<_>>()?;
    // Mounts are this namespace's own from here on.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    enter(&empty_root()?)?;
    Ok(Ready(namespaces))
}

fn empty_root() -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Room for its root directory and no more.
    for (key, value) in [("mode", "0555"), ("nr_inodes", "1"), ("size", "4096")] {
        rustix::mount::fsconfig_set_string(&fs, key, value)?;
    }
    rustix::mount::fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Makes `root` the root directory and forgets the old one.
fn enter(root: &OwnedFd) -> io::Result<()> {
    let old = rustix::fs::open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::mount::move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}
