//! `linux.resources` into control files. One file a controller; nothing is written that was not asked for.

mod cpu;
mod field;
mod file;
mod hugetlb;
mod io;
mod memory;
mod network;
mod pids;
mod rdma;
mod unified;

use oci_spec::runtime::LinuxResources;

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::hierarchy::Layout;

impl Cgroup {
    /// Sets the limits in `resources`, at creation and on update alike. Fields that are absent stay as they are, and so
    /// do the device rules if there are none. Stops at the first failure; limits set before it stay set.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        self.apply_each(resources).map_err(field::named)
    }

    fn apply_each(&self, resources: &LinuxResources) -> Result<()> {
        if let Some(memory) = resources.memory() {
            memory::apply(self, memory)?;
        }
        if let Some(cpu) = resources.cpu() {
            cpu::apply(self, cpu)?;
        }
        if let Some(pids) = resources.pids() {
            pids::apply(self, pids)?;
        }
        if let Some(block_io) = resources.block_io() {
            io::apply(self, block_io)?;
        }
        if let Some(limits) = resources.hugepage_limits() {
            hugetlb::apply(self, limits)?;
        }
        if let Some(network) = resources.network() {
            network::apply(self, network)?;
        }
        if let Some(rdma) = resources.rdma() {
            rdma::apply(self, rdma)?;
        }
        // Last of the plain files: by the spec these override what the fields above wrote.
        if let Some(unified) = resources.unified() {
            unified::apply(self, unified)?;
        }
        match resources.devices() {
            Some(rules) if !rules.is_empty() => self.apply_devices(rules),
            _ => Ok(()),
        }
    }

    pub(crate) fn is_v2(&self) -> bool {
        self.layout == Layout::V2
    }
}

/// `-1` in the spec and `max` in v2 mean the same.
fn max_or(limit: i64) -> String {
    if limit < 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}

fn unsupported(setting: &'static str, reason: &str) -> Error {
    Error::Unsupported {
        setting,
        reason: reason.to_owned(),
    }
}

fn invalid(setting: &'static str, value: &dyn ToString, reason: &str) -> Error {
    Error::Invalid {
        setting,
        value: value.to_string(),
        reason: reason.to_owned(),
    }
}

/// Text that becomes one line of a control file: no control character may split it or end it early.
fn check_line(setting: &'static str, text: &str) -> Result<()> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(invalid(
            setting,
            &text.escape_debug(),
            "is empty or holds a control character",
        ));
    }
    Ok(())
}
