//! Exit codes, docker's.

use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The verb did what was asked.
    Success,
    /// A verb other than `run` and its kin failed.
    Failure,
    /// berth itself failed in `run`, `create` or `exec`, or was called wrongly.
    Berth,
    /// The container's code, or berth's 126 and 127 in its stead.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Berth => 125,
            Exit::Code(code) => code,
        })
    }
}
