//! The files of a container that does not run: its machine is booted, the container made and its program never started.
//!
//! The host could read the scratch disk itself, and does not: a guest has written it, and file systems are not made for disks that
//! somebody crafted (docs/microvms.md). This machine has the container's disks and volumes, and no network.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use berth_guest::client::Client;
use berth_guest::protocol::Streams;

use super::monitor::Monitor;
use super::programs::Programs;
use super::{FAREWELL, Plan, failed, guest, spec};
use crate::config::ContainerConfig;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::paths::Paths;

/// The machine. Dropped before its [`Stopped::end`], it loses what was not written back.
pub(crate) struct Stopped {
    monitor: Monitor,
    run_dir: PathBuf,
}

/// Whether there is one for a container that rests, or what is left of one.
pub(crate) fn is_up(paths: &Paths, id: &ContainerId) -> bool {
    paths.run_dir(id).join(guest::SOCKETS).exists()
}

impl Stopped {
    /// Boots it, and blocks until the files are there. The caller holds the container's lock for as long as it is up: nobody else may
    /// use the scratch disk.
    pub(crate) fn boot(paths: &Paths, config: &ContainerConfig, programs: &Programs) -> Result<Stopped> {
        let run_dir = paths.run_dir(&config.id);
        match std::fs::DirBuilder::new().mode(0o700).create(&run_dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", run_dir, e));
            }
            _ => {}
        }
        // berth's own files are a run's; here their places are empty.
        let files: BTreeMap<String, String> = spec::FILES.map(|name| (name.to_owned(), String::new())).into();
        let streams = if config.tty {
            Streams::Terminal
        } else {
            Streams::Pipes {
                stdin: false,
                stdout: false,
                stderr: false,
            }
        };
        let plan = Plan::of(paths, config, &[], files, streams)?;
        let (monitor, _client): (_, Client<_>) = plan.create(config, &run_dir, programs)?;
        Ok(Stopped { monitor, run_dir })
    }

    /// Writes everything back and switches the machine off.
    pub(crate) fn end(self) -> Result<()> {
        guest::client(&self.run_dir)
            .map_err(failed)?
            .shut_down()
            .map_err(|e| failed(e.into()))?;
        if self.monitor.ends_within(FAREWELL) {
            return Ok(());
        }
        Err(Error::MicroVm {
            why: "the guest did not switch itself off, and may not have written everything back".into(),
        })
    }
}
