//! `linux.resources` into control files. One file a controller; nothing is written that was not asked for.

use oci_spec::runtime::LinuxResources;

use crate::cgroup::Cgroup;
use crate::error::Result;

impl Cgroup {
    /// Sets the limits in `resources`, at creation and on update alike. Fields that are absent stay as they are.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let _ = resources;
        Err(crate::Error::Unsupported {
            setting: "linux.resources",
            reason: "not ready".to_owned(),
        })
    }
}
