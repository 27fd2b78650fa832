//! How a microVM's process ends, and what its exit status says.

use std::process::ExitCode;

/// The end of a microVM. Statuses of failures are Firecracker's, so that what watches it can stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The guest switched itself off (ACPI S5).
    PoweredOff,
    /// The guest asked for a reset: `reboot`, or a panic with `panic=` on the command line of a kernel without the driver for
    /// [`Exit::Panicked`]. A microVM is not started again by itself.
    Reset,
    /// The guest lost control of a CPU: triple fault, or an instruction KVM cannot run.
    Crashed,
    /// The guest's kernel told that it has panicked.
    Panicked,
    /// The monitor failed while the guest ran, or before.
    Failed,
    /// A thread of the monitor asked the kernel for something it never needs: the process ended there and then.
    Forbidden,
    /// The configuration is refused.
    BadConfiguration,
    /// The command line is refused.
    BadArguments,
}

/// All of them.
const ALL: [Exit; 8] = [
    Exit::PoweredOff,
    Exit::Reset,
    Exit::Crashed,
    Exit::Panicked,
    Exit::Failed,
    Exit::Forbidden,
    Exit::BadConfiguration,
    Exit::BadArguments,
];

impl Exit {
    /// What a process with this status says.
    pub(crate) fn of(status: u8) -> Option<Exit> {
        ALL.into_iter().find(|exit| exit.status() == status)
    }

    /// The process's exit status.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Exit::PoweredOff => 0,
            Exit::Failed => 1,
            Exit::Reset => 3,
            Exit::Crashed => 4,
            Exit::Panicked => 5,
            Exit::Forbidden => 148,
            Exit::BadConfiguration => 152,
            Exit::BadArguments => 153,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        exit.status().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ends_look_alike() {
        let mut statuses: Vec<u8> = ALL.into_iter().map(Exit::status).collect();
        statuses.sort_unstable();
        statuses.dedup();
        assert_eq!(statuses.len(), ALL.len());
    }
}
