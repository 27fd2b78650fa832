//! How a process gets into a cgroup.
//!
//! * v2: the kernel places it at birth, `clone3(2)` with `CLONE_INTO_CGROUP` and [`Entry::clone_into`].
//! * v1: the child calls [`Entry::enter`], which writes `0` to `tasks` of every hierarchy. That moves one thread and takes
//!   no lock across all of the machine's threads; a parent writing a pid to `cgroup.procs` waits for an RCU grace
//!   period, some 10 ms on an idle machine.
//! * hybrid: both.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::cgroup::Cgroup;
use crate::dir::{Dir, write_whole};
use crate::error::{Error, Result};

/// Descriptors opened ahead, so that entering needs neither allocation nor path lookup. All close-on-exec.
#[derive(Debug)]
pub struct Entry {
    tasks: Vec<OwnedFd>,
    unified: Option<OwnedFd>,
}

impl Entry {
    /// One whose `tasks` files come from another process, by [`Entry::tasks`].
    #[must_use]
    pub fn of_tasks(tasks: Vec<OwnedFd>) -> Entry {
        Entry { tasks, unified: None }
    }

    /// What [`Entry::enter`] writes to, to be handed to who enters; nothing on v2.
    #[must_use]
    pub fn tasks(&self) -> Vec<BorrowedFd<'_>> {
        self.tasks.iter().map(AsFd::as_fd).collect()
    }

    /// Directory for `clone3(2)`'s `CLONE_INTO_CGROUP`; `None` on pure v1 and where the v2 tree is not used.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling thread into the v1 hierarchies. Call in the child, while it has one thread, before it execs or
    /// unshares its cgroup namespace. Does not allocate. Nothing to do on v2.
    pub fn enter(&self) -> io::Result<()> {
        self.tasks
            .iter()
            .try_for_each(|tasks| write_whole(tasks.as_fd(), b"0"))
    }

    /// Moves the calling process into the v2 tree: for a child that was not cloned into it (the kernel before 5.7,
    /// or a fork by other means). Does not allocate.
    pub fn enter_unified(&self) -> io::Result<()> {
        let Some(dir) = &self.unified else { return Ok(()) };
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOFOLLOW;
        let procs = rustix::fs::openat(dir, c"cgroup.procs", flags, rustix::fs::Mode::empty())?;
        write_whole(procs.as_fd(), b"0")
    }
}

impl Cgroup {
    /// Opens what a child needs to enter.
    pub fn entry(&self) -> Result<Entry> {
        let tasks = self
            .v1
            .iter()
            .map(|entry| entry.dir.open_for_writing("tasks"))
            .collect::<Result<Vec<_>>>()?;
        let unified = self.unified.as_ref().map(duplicate).transpose()?;
        Ok(Entry { tasks, unified })
    }

    /// As [`Cgroup::entry`], but on v2 into the cgroup `init` is in now, if that lies below this one. A container that
    /// manages cgroups itself has moved its processes into leaves, and its top then takes no process (cgroup-v2.rst,
    /// "No Internal Process Constraint").
    pub fn entry_beside(&self, init: i32) -> Result<Entry> {
        let mut entry = self.entry()?;
        let Some(unified) = &self.unified else {
            return Ok(entry);
        };
        let file = std::path::PathBuf::from(format!("/proc/{init}/cgroup"));
        let text = std::fs::read_to_string(&file).map_err(|source| Error::Read { file, source })?;
        let own = self.path.to_string();
        let below = text
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .and_then(|path| path.strip_prefix(own.as_str()))
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|rest| !rest.is_empty());
        if let Some(below) = below {
            entry.unified = Some(duplicate(&unified.open_below(below)?)?);
        }
        Ok(entry)
    }

    /// Moves another process in, with all its threads, hierarchy by hierarchy. Slow on v1; see the module's text.
    pub fn add_process(&self, pid: i32) -> Result<()> {
        // 0 would be the caller itself.
        if pid <= 0 {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(Error::Enter {
                pid,
                path: self.display_path(),
                source,
            });
        }
        let value = pid.to_string();
        for dir in self.v1.iter().map(|entry| &entry.dir).chain(&self.unified) {
            dir.try_write("cgroup.procs", &value)
                .map_err(|source| Error::Enter {
                    pid,
                    path: dir.path().to_owned(),
                    source,
                })?;
        }
        Ok(())
    }
}

fn duplicate(dir: &Dir) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(dir.fd(), 3).map_err(|error| Error::Open {
        path: dir.path().to_owned(),
        source: error.into(),
    })
}
