//! The child's side: from a fresh clone to the user's program.
//!
//! [`create`] and [`exec`] are the two lists of steps; the other modules are the steps. Everything here runs in a
//! process with one thread, which ends by execve or by sending its failure to the parent.

pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod identity;
pub(crate) mod join;
pub(crate) mod program;
pub mod rootfs;
pub(crate) mod stdio;

use berth_sys::clone::exit_now;

use crate::error::Error;
use crate::sync::{Channel, Failure, Message};

/// Tells the parent and ends.
pub(crate) fn fail(channel: &Channel, error: &Error) -> ! {
    // A parent that is gone has nobody left to tell.
    let _ = channel.say(&Message::Failed(Failure::from(error)));
    exit_now(match error {
        Error::Exec { cause, .. } if cause.kind() == std::io::ErrorKind::PermissionDenied => 126,
        Error::Exec { .. } => 127,
        _ => 1,
    })
}
