//! Which device nodes may be made and opened.
//!
//! The rules of `linux.resources.devices` mean, on every version: for each access asked (read, write, mknod) the **last
//! rule that matches decides, and what no rule matches is denied**. v2 runs them as a BPF program ([`program`]); v1 knows
//! a default and exceptions ([`v1`]), and a list it cannot express is refused rather than enforced wrongly.

pub mod program;
pub mod rule;
mod v1;

use oci_spec::runtime::LinuxDeviceCgroup;
use rule::Rule;

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::hierarchy::Controller;

/// Name under which our program is recognised when it is to be replaced (`BPF_OBJ_NAME_LEN` is 16).
const PROGRAM_NAME: &std::ffi::CStr = c"berth_devices";

impl Cgroup {
    /// Puts `rules` in place of the device rules there are.
    pub(crate) fn apply_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let rules = rules.iter().map(Rule::parse).collect::<Result<Vec<_>>>()?;
        if !self.is_v2() {
            let dir = self.v1_dir_for(Controller::Devices, rule::SETTING)?;
            return v1::apply(dir, &v1::Policy::compile(&rules)?);
        }
        let Some(dir) = &self.unified else { return Ok(()) };
        let failed = |operation| {
            move |source| Error::DeviceFilter {
                operation,
                path: dir.path().to_owned(),
                source,
            }
        };
        let program = program::generate(&rules);
        let program = berth_sys::bpf::load_cgroup_device(&program, PROGRAM_NAME).map_err(failed("load"))?;
        let attached = berth_sys::bpf::query_cgroup_device(dir.fd()).map_err(failed("query"))?;
        // Somebody else's program on the same cgroup (systemd's) stays and is asked as well.
        let mut ours = None;
        for id in attached {
            let old = match berth_sys::bpf::program_by_id(id) {
                Ok(old) => old,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(error) => return Err(failed("find")(error)),
            };
            if berth_sys::bpf::program_name(&old)
                .map_err(failed("inspect"))?
                .as_c_str()
                == PROGRAM_NAME
            {
                ours = Some(old);
            }
        }
        // One call swaps old for new: at no instant is the cgroup without a filter.
        berth_sys::bpf::attach_cgroup_device(dir.fd(), &program, ours.as_ref()).map_err(failed("attach"))
    }
}
