//! x
use super::{Console, Error, Plan, Result};
use std::os::fd::OwnedFd;
/// A root built but not yet entered.
#[derive(Debug)]
pub struct Mounted {
    /// The container's `/`.
    pub root: OwnedFd,
    /// Present if `process.terminal` is set.
    pub console: Option<Console>,
}
/// Propagation of `/`, the rootfs as a mount, all mounts in order, devices, links, console.
///
/// # Errors
/// The step that failed. The mount namespace is then half built; drop it.
pub fn setup(plan: &Plan) -> Result<Mounted> {
    let _ = plan;
    Err(Error::Invalid {
        field: "root".into(),
        reason: "not supported: being written".into(),
    })
}
