//! `events`: figures and out-of-memory events as JSON lines.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_runtime::{StateRoot, Status};
use clap::Args;
use serde_json::Value;

use super::{Failure, Outcome, figures, load, print};

#[derive(Args)]
pub struct EventsArgs {
    /// Between figures: numbers with ms, s, m or h, as 1m30s
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub interval: Duration,
    /// The figures once, then end
    #[arg(long)]
    pub stats: bool,
    /// The container
    pub id: String,
}

/// Longest time until an out-of-memory kill is told, whatever the interval.
const OOM_POLL: Duration = Duration::from_millis(200);

fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration");
    let mut millis: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        millis = millis.saturating_add(number.saturating_mul(factor));
        rest = &rest[unit..];
    }
    if millis == 0 {
        return Err("the interval must be longer than nothing".into());
    }
    Ok(Duration::from_millis(millis))
}

pub fn events(root: &StateRoot, args: &EventsArgs) -> Outcome {
    let container = load(root, &args.id)?;
    if container.status()? == Status::Stopped {
        return Err(Failure::new(format!(
            "container with id {} is not running",
            args.id
        )));
    }
    let line = |kind: &str, data: Value| {
        let mut event = serde_json::json!({"type": kind, "id": args.id});
        if !data.is_null() {
            event["data"] = data;
        }
        print(&format!("{event}\n"));
    };
    let cgroup = container
        .cgroup()?
        .ok_or_else(|| Failure::new("the container's cgroup is gone"))?;
    // Gone from under us is told by the end of init; until then the last count holds.
    let kills = |last: u64| cgroup.oom_kills().unwrap_or(last).max(last);
    let mut seen = kills(0);
    loop {
        let stats = cgroup.stats().map_err(berth_runtime::Error::from)?;
        line("stats", figures::event(&stats, cgroup.layout()));
        if args.stats {
            return Ok(ExitCode::SUCCESS);
        }
        let due = Instant::now() + args.interval;
        loop {
            let left = due.saturating_duration_since(Instant::now());
            let ended = container.wait_stopped(Some(left.min(OOM_POLL)))?;
            let now = kills(seen);
            for _ in seen..now {
                line("oom", Value::Null);
            }
            seen = now;
            if ended {
                return Ok(ExitCode::SUCCESS);
            }
            if left.is_zero() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn intervals_as_go_writes_them() {
        for (text, millis) in [("5s", 5000), ("1m30s", 90_000), ("250ms", 250), ("2h", 7_200_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "0s", "-1s", "1x", "1s5"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
