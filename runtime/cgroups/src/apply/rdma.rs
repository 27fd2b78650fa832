//! RDMA handles and objects, the same file in both versions.

use std::collections::HashMap;

use oci_spec::runtime::LinuxRdma;

use super::{check_line, invalid};
use crate::cgroup::Cgroup;
use crate::error::Result;
use crate::hierarchy::Controller;

const SETTING: &str = "linux.resources.rdma";

pub(super) fn apply(cgroup: &Cgroup, devices: &HashMap<String, LinuxRdma>) -> Result<()> {
    for (device, limits) in devices {
        check_line(SETTING, device)?;
        if device.contains(char::is_whitespace) {
            return Err(invalid(SETTING, device, "is not a device name"));
        }
        let mut value = device.clone();
        for (key, limit) in [
            ("hca_handle", limits.hca_handles()),
            ("hca_object", limits.hca_objects()),
        ] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        let dir = if cgroup.is_v2() {
            cgroup.v2_dir_for("rdma", "rdma.max", SETTING)?
        } else {
            cgroup.v1_dir_for(Controller::Rdma, SETTING)?
        };
        dir.write("rdma.max", &value)?;
    }
    Ok(())
}
