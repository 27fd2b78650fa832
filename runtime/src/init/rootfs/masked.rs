//! x
use super::{Plan, Result};
/// Paths the engine masks unless told otherwise.
pub const DEFAULT_MASKED: &[&str] = &[];
/// Paths the engine makes read-only unless told otherwise.
pub const DEFAULT_READONLY: &[&str] = &[];
/// After pivot: read-only paths, masked paths, rootfsPropagation, read-only root.
///
/// # Errors
/// The step that failed.
pub fn finish(plan: &Plan) -> Result<()> {
    let _ = plan;
    Ok(())
}
