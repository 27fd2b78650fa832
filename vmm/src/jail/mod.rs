//! The jail: before the guest's first instruction the process leaves the host's files, networks and names, and its user.
//!
//! ```text
//! birth: a pid namespace, a cgroup on v2 ─► boot: kernel, disks, TAPs, sockets, /dev/kvm are opened; beside.rs: namespaces
//!       ─► a cgroup on v1 ─► leave_host: namespaces, an empty root
//!       ─► shared directories' threads keep five capabilities ─► become_nobody: a user of its own ─► processors run
//! ```
//!
//! What is open stays: nothing else of the host can be named any more. The root is an empty, read-only tmpfs that is made by
//! descriptor, so that no path is followed while the process is still root (CVE-2026-1386).
//!
//! The process is one of its own for this (`keeper/`).

mod beside;
pub(crate) mod cgroup;
mod limit;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use berth_sys::credentials::{self, CapSets};
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

pub(crate) use beside::Beside;
pub use cgroup::Placement;
pub use limit::Limit;

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
const CAP_SYS_ADMIN: u32 = 21;

/// Whom the process becomes, and where it is then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jail {
    uid: u32,
    gid: u32,
    /// A network namespace to be in, by its file. Unless given, one of its own, with nothing in it.
    pub network: Option<PathBuf>,
    /// Its cgroup.
    pub cgroup: Placement,
    /// Bounds of its process.
    pub limits: Vec<Limit>,
}

impl Jail {
    /// A jail under these ids; those that are missing are of this process alone on its host.
    #[must_use]
    pub fn new(uid: Option<u32>, gid: Option<u32>, cgroup: Placement) -> Jail {
        let own = UIDS + std::process::id();
        Jail {
            uid: uid.unwrap_or(own),
            gid: gid.unwrap_or(own),
            network: None,
            cgroup,
            limits: Vec::new(),
        }
    }

    /// Whether this process can make one, as far as it can know before.
    ///
    /// # Errors
    ///
    /// [`Error::Jail`].
    pub(crate) fn check() -> Result<()> {
        let failed = failed("leave the host's namespaces");
        let now = credentials::capabilities().map_err(&failed)?;
        if now.effective & 1 << CAP_SYS_ADMIN == 0 {
            return Err(failed(io::Error::from_raw_os_error(libc::EPERM)));
        }
        Ok(())
    }

    /// At the birth of the machine's process, before it opens anything: its bounds, and the network whose TAPs it is to find.
    ///
    /// # Errors
    ///
    /// [`Error::Jail`] and [`Error::File`].
    pub(crate) fn enter_network(&self) -> Result<()> {
        self.limits.iter().try_for_each(|limit| limit.set())?;
        let Some(path) = &self.network else {
            return Ok(());
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let entered = rustix::fs::open(path, flags, Mode::empty()).and_then(|namespace| {
            let kind = Some(LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)
        });
        entered.map_err(|e| Error::File {
            operation: "enter network namespace",
            path: path.clone(),
            source: e.into(),
        })
    }

    /// Begins to make what takes long.
    ///
    /// # Errors
    ///
    /// Those of [`Beside::begin`].
    pub(crate) fn begin(&self) -> Result<Beside> {
        Beside::begin(self.network.is_none())
    }

    /// Leaves the host's mounts, networks, host name and IPC for those made `beside`. For a process of one other thread, which is gone afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Jail`] when the kernel refuses; the process may then be halfway.
    pub(crate) fn leave_host(&self, beside: Beside) -> Result<()> {
        let ready = beside.ready()?;
        ready.enter().map_err(failed("leave the host's namespaces"))
    }

    /// Gives up root and every capability, on the calling thread and those it makes.
    ///
    /// # Errors
    ///
    /// [`Error::Jail`] when the kernel refuses.
    pub(crate) fn become_nobody(&self) -> Result<()> {
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
