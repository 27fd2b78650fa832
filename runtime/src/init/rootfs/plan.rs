//! x
use super::{Error, Result};
use oci_spec::runtime::Spec;
use std::path::Path;
/// All that init needs to know to build the root, checked, with what must be opened from outside opened.
#[derive(Debug)]
pub struct Plan {}
impl Plan {
    /// Checks the spec's root, mounts, devices, paths; opens what init may not be able to. Runs in the parent.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field of config.json; [`Error::OpenSource`], [`Error::IdMap`].
    pub fn prepare(spec: &Spec, bundle: &Path) -> Result<Plan> {
        let _ = (spec, bundle);
        Err(Error::Invalid {
            field: "root".into(),
            reason: "not supported: being written".into(),
        })
    }
}
