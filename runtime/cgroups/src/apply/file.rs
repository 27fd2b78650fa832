//! One control file by name, in whichever hierarchy has it.

use super::{unified, unsupported};
use crate::cgroup::Cgroup;
use crate::error::Result;

impl Cgroup {
    /// Writes `value` to the control file `file`, `pids.max`, say. Files that move, freeze or kill processes are refused.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        unified::check(file, value)?;
        let mut dirs = self.v1.iter().map(|entry| &entry.dir).chain(&self.unified);
        match dirs.find(|dir| dir.has(file)) {
            Some(dir) => dir.write(file, value),
            None => Err(unsupported(
                "control file",
                &format!("cgroup {} has no {file}", self.display_path().display()),
            )),
        }
    }
}
