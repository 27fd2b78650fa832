//! `berth stats`.

use clap::Args;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::thread::sleep;
use std::time::Duration;

use berth_engine::ContainerId;
use berth_engine::stats::Sample;
use berth_engine::{Engine, ListOptions};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer::{self, Rows, binary, decimal};

#[derive(Debug, Args)]
pub struct Stats {
    /// Also those not running
    #[arg(short, long)]
    all: bool,
    /// table, json, or a Go template
    #[arg(long)]
    format: Option<String>,
    /// One reading, then end
    #[arg(long)]
    no_stream: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Containers; all running ones if none is named
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Stats, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let mut before = samples(&engine, &args)?;
    loop {
        sleep(Duration::from_secs(1));
        let now = samples(&engine, &args)?;
        let old: HashMap<&str, &Sample> = before
            .iter()
            .filter_map(|(id, _, sample)| Some((id.as_str(), sample.as_ref()?)))
            .collect();
        let rows = now
            .iter()
            .map(|(id, name, sample)| {
                row(
                    id,
                    name,
                    sample.as_ref(),
                    old.get(id.as_str()).copied(),
                    args.no_trunc,
                )
            })
            .collect();
        let rows = Rows {
            headings: &[
                ("Container", "CONTAINER"),
                ("ID", "CONTAINER ID"),
                ("Name", "NAME"),
                ("CPUPerc", "CPU %"),
                ("MemUsage", "MEM USAGE / LIMIT"),
                ("MemPerc", "MEM %"),
                ("NetIO", "NET I/O"),
                ("BlockIO", "BLOCK I/O"),
                ("PIDs", "PIDS"),
            ],
            table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
            quiet: None,
            rows,
        };
        if !args.no_stream && std::io::stdout().is_terminal() {
            // Home and clear: the table is drawn over itself.
            printer::raw(b"\x1b[H\x1b[J")?;
        }
        rows.print(args.format.as_deref(), false)?;
        if args.no_stream {
            return Ok(Exit::Success);
        }
        before = now;
    }
}

type Reading = (ContainerId, String, Option<Sample>);

fn samples(engine: &Engine, args: &Stats) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    if args.containers.is_empty() {
        for summary in engine.list(&ListOptions {
            all: args.all,
            ..ListOptions::default()
        })? {
            let sample = engine.stats(&summary.id)?;
            readings.push((summary.id, summary.name.to_string(), sample));
        }
    } else {
        for name in &args.containers {
            let id = engine.find(name)?;
            let name = engine.config(&id)?.name.to_string();
            let sample = engine.stats(&id)?;
            readings.push((id, name, sample));
        }
    }
    Ok(readings)
}

#[allow(clippy::cast_precision_loss)] // a percentage for people
fn row(id: &ContainerId, name: &str, sample: Option<&Sample>, before: Option<&Sample>, whole: bool) -> Value {
    let id = if whole { id.as_str() } else { id.short() };
    let Some(sample) = sample else {
        let none = "--";
        return json!({
            "Container": id, "ID": id, "Name": name, "CPUPerc": none, "MemUsage": "-- / --", "MemPerc": none,
            "NetIO": none, "BlockIO": none, "PIDs": none,
        });
    };
    let memory = sample.cgroup.memory.working_set;
    let limit = sample.memory_limit();
    let io = &sample.cgroup.io;
    json!({
        "Container": id,
        "ID": id,
        "Name": name,
        "CPUPerc": format!("{:.2}%", before.map_or(0.0, |before| sample.cpu_percent(before))),
        "MemUsage": format!("{} / {}", binary(memory), binary(limit)),
        "MemPerc": format!("{:.2}%", memory as f64 / limit.max(1) as f64 * 100.0),
        "NetIO": format!("{} / {}", decimal(sample.rx_bytes), decimal(sample.tx_bytes)),
        "BlockIO": format!("{} / {}", decimal(io.read_bytes), decimal(io.write_bytes)),
        "PIDs": sample.cgroup.pids.current.to_string(),
    })
}
