//! `events`: figures and out-of-memory events as JSON lines.

use std::process::ExitCode;
use std::time::Duration;

use berth_runtime::{StateRoot, Status};
use clap::Args;

use super::{Failure, Outcome, load, print};

#[derive(Args)]
pub struct EventsArgs {
    /// Between figures: a number with ms, s, m or h
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub interval: Duration,
    /// The figures once, then end
    #[arg(long)]
    pub stats: bool,
    /// The container
    pub id: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split]
        .parse()
        .map_err(|_| format!("{text:?} is not a duration"))?;
    let millis = match &text[split..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("{text:?} is not a duration")),
    };
    let found = Duration::from_millis(number.saturating_mul(millis));
    if found.is_zero() {
        Err("the interval must be longer than nothing".into())
    } else {
        Ok(found)
    }
}

pub fn events(root: &StateRoot, args: &EventsArgs) -> Outcome {
    let container = load(root, &args.id)?;
    if container.status()? == Status::Stopped {
        return Err(Failure::new(format!("container {:?} is not running", args.id)));
    }
    let line = |kind: &str, data: serde_json::Value| {
        let mut event = serde_json::json!({"type": kind, "id": args.id});
        if !data.is_null() {
            event["data"] = data;
        }
        print(&format!("{event}\n"));
    };
    let cgroup = container
        .cgroup()?
        .ok_or_else(|| Failure::new("the container's cgroup is gone"))?;
    let kills = || cgroup.oom_kills().unwrap_or(0);
    let mut seen = kills();
    loop {
        let stats = cgroup.stats().map_err(berth_runtime::Error::from)?;
        line(
            "stats",
            serde_json::to_value(&stats).map_err(|e| Failure::new(e.to_string()))?,
        );
        if args.stats {
            return Ok(ExitCode::SUCCESS);
        }
        let ended = container.wait_stopped(Some(args.interval))?;
        let now = kills();
        for _ in seen..now {
            line("oom", serde_json::Value::Null);
        }
        seen = now;
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
    }
}
