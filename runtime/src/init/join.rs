//! Namespaces entered by path, and the intermediate process for those that only children enter.
//!
//! A pid or time namespace takes effect for children; a user namespace entered first would take away the right to enter
//! others that the host owns. So an intermediate enters what it may as the caller, then the user namespace, then the
//! rest, clones init as its *sibling* (`CLONE_PARENT`: the real parent waits for it), sends its pidfd, and ends.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::clone::{Clone3, Forked, clone3, exit_now};
use oci_spec::runtime::LinuxNamespaceType as Ns;
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::error::{Error, Result, Step};
use crate::init::rootfs::procfs::Proc;
use crate::sync::{Channel, Message};
use crate::validate::{Namespaces, bit};

/// A namespace to enter: its `CLONE_NEW*` bit and an open descriptor.
#[derive(Debug)]
pub(crate) struct Target {
    kind: u64,
    fd: OwnedFd,
    name: String,
}

/// Opens the namespaces to join; the parent's side, where the paths mean what the configuration means.
pub(crate) fn open(namespaces: &Namespaces) -> Result<Vec<Target>> {
    let open_one = |(kind, path): &(u64, std::path::PathBuf)| {
        let fd = rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        )
        .map_err(|e| Error::path("open namespace", path, e))?;
        check_kind(&fd, *kind, path)?;
        Ok(Target {
            kind: *kind,
            fd,
            name: path.display().to_string(),
        })
    };
    namespaces.join.iter().map(open_one).collect()
}

/// Every type of namespace and what setns(2) calls it.
const KINDS: [(Ns, LinkNameSpaceType); 8] = [
    (Ns::Mount, LinkNameSpaceType::Mount),
    (Ns::Cgroup, LinkNameSpaceType::ControlGroup),
    (Ns::Uts, LinkNameSpaceType::HostNameAndNISDomainName),
    (Ns::Ipc, LinkNameSpaceType::InterProcessCommunication),
    (Ns::User, LinkNameSpaceType::User),
    (Ns::Pid, LinkNameSpaceType::ProcessID),
    (Ns::Network, LinkNameSpaceType::Network),
    (Ns::Time, LinkNameSpaceType::Time),
];

/// The path is a namespace, and of the type it is given for.
fn check_kind(fd: &OwnedFd, wanted: u64, path: &Path) -> Result<()> {
    /// `NSFS_MAGIC` of linux/magic.h.
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    let found = rustix::fs::fstatfs(fd)
        .map_err(|e| Error::path("inspect namespace", path, e))?
        .f_type;
    let invalid = |why: String| Error::invalid("linux.namespaces", format!("{} {why}", path.display()));
    // The magic first: to a file of another kind the number of the ioctl may mean anything.
    if found != NSFS_MAGIC {
        return Err(invalid("is not a namespace".into()));
    }
    let kind =
        berth_sys::namespace::kind(fd.as_fd()).map_err(|e| Error::path("inspect namespace", path, e))?;
    if kind == wanted {
        return Ok(());
    }
    let name = |bits: u64| {
        let known = KINDS.iter().find(|(ns, _)| bit(*ns) == bits);
        known.map_or_else(|| format!("{bits:#x}"), |(ns, _)| ns.to_string())
    };
    Err(invalid(format!(
        "is a namespace of type {}, not {}",
        name(kind),
        name(wanted)
    )))
}

/// Whether init must come from an intermediate.
pub(crate) fn needs_intermediate(namespaces: &Namespaces) -> bool {
    let user = namespaces.has(Ns::User);
    namespaces.joins(Ns::Pid)
        || namespaces.joins(Ns::User)
        || namespaces.makes(Ns::Time)
        || (user && !namespaces.join.is_empty())
}

/// Enters all targets, those refused before the user namespace again after it.
pub(crate) fn enter(targets: &[Target]) -> Result<()> {
    let user = bit(Ns::User);
    let mut later = Vec::new();
    let has_user = targets.iter().any(|t| t.kind == user);
    for target in targets.iter().filter(|t| t.kind != user) {
        match set(target) {
            Err(rustix::io::Errno::PERM) if has_user => later.push(target),
            other => other.step("join namespace", target.name.as_str())?,
        }
    }
    for target in targets.iter().filter(|t| t.kind == user) {
        set(target).step("join namespace", target.name.as_str())?;
    }
    for target in later {
        set(target).step("join namespace", target.name.as_str())?;
    }
    if has_user {
        become_root()?;
    }
    Ok(())
}

/// The kernel checks that the descriptor is of this kind.
fn set(target: &Target) -> rustix::io::Result<()> {
    let kind = KINDS
        .into_iter()
        .find(|(ns, _)| bit(*ns) == target.kind)
        .map(|(_, kind)| kind);
    rustix::thread::move_into_link_name_space(target.fd.as_fd(), kind)
}

/// Root of the user namespace just entered; the ids of outside mean nothing here.
pub(crate) fn become_root() -> Result<()> {
    berth_sys::credentials::set_gid(0).step("set gid", "0 in the user namespace")?;
    berth_sys::credentials::set_uid(0).step("set uid", "0 in the user namespace")
}

/// Makes a time namespace for children, with its offsets; they are fixed once a process lives in it. `proc` is the host's:
/// where we are now may be a joined mount namespace, with anything as `/proc`.
fn make_time_namespace(proc: &Proc, offsets: &str) -> Result<()> {
    berth_sys::credentials::unshare(0x80).step("make", "a time namespace")?;
    if offsets.is_empty() {
        return Ok(());
    }
    Ok(proc.write("self/timens_offsets", offsets.as_bytes())?)
}

/// The intermediate's whole life. Returns in init; the intermediate itself ends here.
pub(crate) fn through_intermediate(
    channel: &Channel,
    targets: &[Target],
    flags: u64,
    proc: &Proc,
    time_offsets: &str,
    cgroup: Option<std::os::fd::BorrowedFd<'_>>,
) -> Result<()> {
    enter(targets)?;
    let time = bit(Ns::Time);
    if flags & time != 0 {
        make_time_namespace(proc, time_offsets)?;
    }
    clone_sibling(channel, flags & !time, cgroup)
}

/// Clones a sibling and ends; returns in the sibling.
#[allow(unsafe_code)] // clone3's one duty is kept here: this process was itself cloned with a single thread
pub(crate) fn clone_sibling(
    channel: &Channel,
    flags: u64,
    cgroup: Option<std::os::fd::BorrowedFd<'_>>,
) -> Result<()> {
    // A group to find the sibling by, should we not live to tell of it; it leaves with its own session.
    rustix::process::setpgid(None, None).step("make", "a process group")?;
    let parent = u64::from(libc::CLONE_PARENT.unsigned_abs());
    // SAFETY: this process has one thread.
    match unsafe {
        clone3(Clone3 {
            flags: flags | parent,
            cgroup,
        })
    }
    .step("clone", "init")?
    {
        // The intermediate's word must be the first the parent hears, and we run beside it.
        Forked::Child => channel.wait_go().map(drop),
        Forked::Parent { pid, pidfd } => {
            channel.say(&Message::Init { pid, pidfd })?;
            exit_now(0)
        }
    }
}
