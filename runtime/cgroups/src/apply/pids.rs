//! How many tasks there may be.

use oci_spec::runtime::LinuxPids;

use crate::cgroup::Cgroup;
use crate::error::Result;
use crate::hierarchy::Controller;

const SETTING: &str = "linux.resources.pids.limit";

/// 0 and negative both mean no limit, as docker and runc have it.
pub(super) fn apply(cgroup: &Cgroup, pids: &LinuxPids) -> Result<()> {
    let value = if pids.limit() <= 0 {
        "max".to_owned()
    } else {
        pids.limit().to_string()
    };
    let dir = if cgroup.is_v2() {
        cgroup.v2_dir_for("pids", "pids.max", SETTING)?
    } else {
        cgroup.v1_dir_for(Controller::Pids, SETTING)?
    };
    dir.write("pids.max", &value)
}
