//! The verbs that take an id and little else: `start state kill delete pause resume`.

use std::process::ExitCode;

use berth_runtime::StateRoot;
use clap::Args;

use super::{Failure, Outcome, load, print};
use crate::report::Report;

#[derive(Args)]
pub struct IdArgs {
    /// The container
    pub id: String,
}

#[derive(Args)]
pub struct KillArgs {
    /// The container
    pub id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
    /// To every process of the container
    #[arg(long, short)]
    pub all: bool,
}

#[derive(Args)]
pub struct DeleteArgs {
    /// The container
    pub id: String,
    /// Kill it first if it runs; no error if there is none
    #[arg(long, short)]
    pub force: bool,
}

pub fn start(root: &StateRoot, args: &IdArgs) -> Outcome {
    load(root, &args.id)?.start()?;
    Ok(ExitCode::SUCCESS)
}

pub fn state(root: &StateRoot, args: &IdArgs) -> Outcome {
    let state = load(root, &args.id)?.state()?;
    print(&format!("{state:#}\n"));
    Ok(ExitCode::SUCCESS)
}

pub fn kill(root: &StateRoot, args: &KillArgs) -> Outcome {
    let number = signal_number(&args.signal)
        .ok_or_else(|| Failure::new(format!("unknown signal {:?}", args.signal)))?;
    load(root, &args.id)?.kill(number, args.all)?;
    Ok(ExitCode::SUCCESS)
}

pub fn delete(root: &StateRoot, args: &DeleteArgs, report: &Report) -> Outcome {
    let container = match load(root, &args.id) {
        Err(_) if args.force && !exists(root, &args.id) => return Ok(ExitCode::SUCCESS),
        // A crash before the first record was written leaves an empty directory.
        Err(_) if args.force => {
            root.release(&berth_runtime::ContainerId::new(args.id.as_str())?)?;
            return Ok(ExitCode::SUCCESS);
        }
        other => other?,
    };
    report.warn(&container.delete(args.force)?);
    Ok(ExitCode::SUCCESS)
}

fn exists(root: &StateRoot, id: &str) -> bool {
    berth_runtime::ContainerId::new(id).is_ok_and(|id| root.dir(&id).exists())
}

pub fn pause(root: &StateRoot, args: &IdArgs) -> Outcome {
    load(root, &args.id)?.pause()?;
    Ok(ExitCode::SUCCESS)
}

pub fn resume(root: &StateRoot, args: &IdArgs) -> Outcome {
    load(root, &args.id)?.resume()?;
    Ok(ExitCode::SUCCESS)
}

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`.
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let add = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('+')?.parse::<i32>().ok()?
        };
        return Some(34 + add).filter(|n| (34..=64).contains(n));
    }
    let at = NAMES.iter().position(|n| *n == name)?;
    i32::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("RTMIN+3", 37),
            ("SIGSYS", 31),
        ] {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "NOPE", "RTMIN+31", "9x"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }
}
