//! The jail: before the guest's first instruction the process leaves the host's files, networks and names, and its user.
//!
//! ```text
//! boot: kernel, disks, TAPs, sockets, /dev/kvm are open ─► leave_host: namespaces, an empty root
//!       ─► shared directories' threads keep five capabilities ─► become_nobody: a user of its own ─► processors run
//! ```
//!
//! What is open stays: nothing else of the host can be named any more. The root is an empty, read-only tmpfs that is made by
//! descriptor, so that no path is followed while the process is still root (CVE-2026-1386). The working directory is a mount of
//! its own of vsock's directory and of nothing above or below it, because `connect(2)` has no other way to the sockets there.
//!
//! There is no pid namespace: entering one takes a fork, which would put a process between who started this one and the guest's
//! end. The filters forbid signals to other processes, and there is no `/proc`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::credentials::{self, CapSets};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use crate::error::{Error, Result};

/// The first of the uids of jails: one for each pid that is possible (`PID_MAX_LIMIT`, 2^22), where distributions and name
/// services give out none.
const UIDS: u32 = 0x7000_0000;

/// What a shared directory's thread does for the guest's root needs: files of any owner, whose owner and mode change
/// (capabilities(7)).
const SHARE: u64 =
    1 << CAP_CHOWN | 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH | 1 << CAP_FOWNER | 1 << CAP_FSETID;
const CAP_CHOWN: u32 = 0;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_FOWNER: u32 = 3;
const CAP_FSETID: u32 = 4;

/// Whom the process becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jail {
    uid: u32,
    gid: u32,
}

impl Jail {
    /// A jail under these ids; those that are missing are of this process alone on its host.
    #[must_use]
    pub fn new(uid: Option<u32>, gid: Option<u32>) -> Jail {
        let own = UIDS + std::process::id();
        Jail {
            uid: uid.unwrap_or(own),
            gid: gid.unwrap_or(own),
        }
    }

    /// Leaves the host's mounts, networks, host name and IPC. `sockets` is the directory that becomes the working directory.
    /// For a process of one thread.
    ///
    /// # Errors
    ///
    /// [`Error::Jail`] when the kernel refuses; the process may then be halfway.
    pub(crate) fn leave_host(self, sockets: Option<&Path>) -> Result<()> {
        let sockets = sockets.map(directory_alone).transpose()?;
        credentials::unshare(
            libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS,
        )
        .map_err(failed("leave the host's namespaces"))?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).map_err(failed("keep mounts to itself"))?;
        let root = empty_root().map_err(failed("make an empty root directory"))?;
        enter(&root).map_err(failed("enter an empty root directory"))?;
        if let Some(sockets) = sockets {
            rustix::process::fchdir(&sockets).map_err(failed("stay in the directory of vsock's sockets"))?;
        }
        Ok(())
    }

    /// Gives up root and every capability, on the calling thread and those it makes.
    ///
    /// # Errors
    ///
    /// [`Error::Jail`] when the kernel refuses.
    pub(crate) fn become_nobody(self) -> Result<()> {
        // A change of user makes the kernel forget it (commit_creds).
        let with_starter = rustix::process::parent_process_death_signal()
            .map_err(failed("find out whether to end with who started this"))?;
        credentials::set_groups(&[])
            .and_then(|()| credentials::set_gid(self.gid))
            .and_then(|()| credentials::set_uid(self.uid))
            // Nothing is left when root goes; when the process was told to stay root, this takes it.
            .and_then(|()| credentials::set_capabilities(CapSets::default()))
            .map_err(failed("become an unprivileged user"))?;
        rustix::process::set_parent_process_death_signal(with_starter)
            .map_err(failed("end with who started this"))
    }
}

/// For the thread of a shared directory in a jail: root's files, and nothing else of root's.
///
/// # Errors
///
/// [`Error::Jail`] when the kernel refuses.
pub(crate) fn keep_files_alone() -> Result<()> {
    credentials::capabilities()
        .and_then(|now| {
            let kept = now.permitted & SHARE;
            credentials::set_capabilities(CapSets {
                effective: kept,
                permitted: kept,
                inheritable: 0,
            })
        })
        .map_err(failed("give up capabilities"))
}

fn failed<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> Error {
    move |source| Error::Jail {
        operation,
        source: source.into(),
    }
}

/// A mount of its own of one directory: `..` ends there, and what is mounted beneath is not in it.
fn directory_alone(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, path, flags).map_err(failed("keep the directory of vsock's sockets"))
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
