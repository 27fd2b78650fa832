//! The programs that come with berth, found beside the one that runs.

use std::path::PathBuf;

/// What the environment's `variable` names, or the file `name` beside the running program. Whether it is there shows when
/// it is opened.
///
/// # Errors
///
/// `/proc` is not mounted.
pub(crate) fn beside(variable: &str, name: &str) -> std::io::Result<PathBuf> {
    match std::env::var_os(variable) {
        Some(path) => Ok(path.into()),
        None => Ok(std::env::current_exe()?.with_file_name(name)),
    }
}
