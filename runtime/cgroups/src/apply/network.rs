//! Traffic classes and priorities: v1 only.

use oci_spec::runtime::LinuxNetwork;

use super::{invalid, unsupported};
use crate::cgroup::Cgroup;
use crate::error::Result;
use crate::hierarchy::Controller;

const CLASS: &str = "linux.resources.network.classID";
const PRIORITIES: &str = "linux.resources.network.priorities";

pub(super) fn apply(cgroup: &Cgroup, network: &LinuxNetwork) -> Result<()> {
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        if cgroup.is_v2() {
            return Err(unsupported(CLASS, "cgroup v2 has no net_cls controller"));
        }
        cgroup
            .v1_dir_for(Controller::NetCls, CLASS)?
            .write("net_cls.classid", &class.to_string())?;
    }
    for priority in network.priorities().iter().flatten() {
        if cgroup.is_v2() {
            return Err(unsupported(PRIORITIES, "cgroup v2 has no net_prio controller"));
        }
        let name = priority.name();
        if name.is_empty()
            || name.len() > 15
            || name
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || c == '/')
        {
            return Err(invalid(
                PRIORITIES,
                &name.escape_debug(),
                "is not an interface name",
            ));
        }
        cgroup
            .v1_dir_for(Controller::NetPrio, PRIORITIES)?
            .write("net_prio.ifpriomap", &format!("{name} {}", priority.priority()))?;
    }
    Ok(())
}
