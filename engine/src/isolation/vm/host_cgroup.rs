//! The host's cgroup of a microVM: what the user promised the container binds the machine as a whole, its monitor included.
//!
//! Made here with its limits, entered by `berth-vmm`, which removes it in the end; here again when that was killed.

use berth_cgroups::{Cgroup, CgroupPath, Hierarchy};
use serde_json::{Value, json};

use crate::error::{Error, Result};

const MIB: u64 = 1 << 20;
/// What the monitor, and the kernel on its behalf, may need besides the guest's memory.
const OVERHEAD_MIB: u64 = 64;
/// Threads besides the processors' and the shares'.
const THREADS: usize = 16;

/// A cgroup that is there. Removed, with whoever is in it, when dropped.
#[derive(Debug)]
pub(super) struct HostCgroup(CgroupPath);

/// What of the container's limits is the machine's too, in the words of `linux.resources`. The guest's memory is what it is whatever
/// the limit becomes later.
fn of_machine(limits: &Value, memory_mib: u64, threads: usize) -> Value {
    let mut all = while_it_runs(limits);
    all["pids"] = json!({ "limit": threads + THREADS });
    if limits["memory"]["limit"].is_number() {
        all["memory"] = json!({ "limit": (memory_mib + OVERHEAD_MIB) * MIB });
    }
    all
}

/// Those that can change while it runs.
fn while_it_runs(limits: &Value) -> Value {
    let mut some = json!({});
    for name in ["cpu", "blockIO"] {
        if let Some(limit) = limits.get(name) {
            some[name] = limit.clone();
        }
    }
    some
}

fn failed(e: &berth_cgroups::Error) -> Error {
    let cause = std::error::Error::source(e).map_or_else(String::new, |cause| format!(": {cause}"));
    Error::MicroVm {
        why: format!("its cgroup on the host: {e}{cause}"),
    }
}

fn apply(cgroup: &Cgroup, limits: Value) -> Result<()> {
    let limits = serde_json::from_value(limits).map_err(|source| Error::Damaged {
        path: "limits of a microVM".into(),
        source,
    })?;
    cgroup.apply(&limits).map_err(|e| failed(&e))
}

impl HostCgroup {
    /// Makes it at `path`, from the roots of the host's hierarchies, for a machine with so much memory and so many threads.
    pub(super) fn make(path: &str, limits: &Value, memory_mib: u64, threads: usize) -> Result<HostCgroup> {
        let made = Hierarchy::detect().and_then(|hierarchy| {
            let path = CgroupPath::parse(path)?;
            Ok((Cgroup::create(&hierarchy, &path, None)?, path))
        });
        let (cgroup, path) = made.map_err(|e| failed(&e))?;
        let group = HostCgroup(path);
        apply(&cgroup, of_machine(limits, memory_mib, threads))?;
        Ok(group)
    }

    /// Changes what can change of a running machine's.
    pub(super) fn update(&self, limits: &Value) -> Result<()> {
        let cgroup = Hierarchy::detect().and_then(|hierarchy| Cgroup::open(&hierarchy, &self.0));
        apply(&cgroup.map_err(|e| failed(&e))?, while_it_runs(limits))
    }

    /// How the monitor is told of it.
    pub(super) fn flags(&self) -> [String; 4] {
        let path = self.0.to_string();
        let (parent, name) = path.rsplit_once('/').expect("it begins with one");
        [
            "--parent-cgroup".into(),
            parent.into(),
            "--id".into(),
            name.into(),
        ]
    }
}

impl Drop for HostCgroup {
    fn drop(&mut self) {
        // The monitor has removed it, unless it was killed.
        crate::reconcile::remove_cgroup(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_the_containers_limits_and_room_for_itself() {
        let limits = json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}, "cpu": {"quota": 50_000, "period": 100_000},
            "pids": {"limit": 10}});
        assert_eq!(
            of_machine(&limits, 160, 3),
            json!({"memory": {"limit": 224 * MIB}, "cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 19}})
        );
        assert_eq!(
            while_it_runs(&limits),
            json!({"cpu": {"quota": 50_000, "period": 100_000}})
        );
        assert_eq!(of_machine(&json!({}), 512, 1), json!({"pids": {"limit": 17}}));
    }
}
