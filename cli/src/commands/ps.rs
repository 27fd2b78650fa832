//! `berth ps`.

use berth_engine::{ListFilter, ListOptions, Summary};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer::{self, Rows};

#[derive(Debug, Args)]
pub struct Ps {
    /// Also those not running
    #[arg(short, long)]
    all: bool,
    /// Only those that fit
    #[arg(short, long = "filter")]
    filter: Vec<ListFilter>,
    /// table, json, or a Go template
    #[arg(long)]
    format: Option<String>,
    /// The newest so many
    #[arg(short = 'n', long)]
    last: Option<usize>,
    /// The newest
    #[arg(short, long)]
    latest: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: Ps, context: &Context) -> Result<Exit> {
    let last = if args.latest { Some(1) } else { args.last };
    let options = ListOptions {
        all: args.all,
        last,
        filters: args.filter,
    };
    let now = Timestamp::now();
    let rows = context
        .engine()?
        .list(&options)?
        .iter()
        .map(|summary| row(summary, args.no_trunc, now))
        .collect();
    let rows = Rows {
        headings: &[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("CreatedAt", "CREATED AT"),
            ("RunningFor", "CREATED"),
            ("Ports", "PORTS"),
            ("State", "STATE"),
            ("Status", "STATUS"),
            ("Names", "NAMES"),
            ("Labels", "LABELS"),
            ("Networks", "NETWORKS"),
        ],
        table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
        quiet: Some("{{.ID}}"),
        rows,
    };
    rows.print(args.format.as_deref(), args.quiet)?;
    Ok(Exit::Success)
}

fn row(summary: &Summary, whole: bool, now: Timestamp) -> Value {
    let state = &summary.state;
    let command = summary.command.join(" ");
    let command = match command.char_indices().nth(19) {
        Some((end, _)) if !whole && command.chars().count() > 20 => format!("{}…", &command[..end]),
        _ => command,
    };
    let labels: Vec<String> = summary
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let health = state.health.as_ref().map(|health| health.status.as_str());
    let status = printer::status(
        state.status.name(),
        state.exit_code,
        state.started,
        state.finished,
        health,
        now,
    );
    json!({
        "ID": if whole { summary.id.as_str() } else { summary.id.short() },
        "Image": summary.image,
        "Command": format!("\"{command}\""),
        "CreatedAt": summary.created.to_string(),
        "RunningFor": printer::ago(summary.created, now),
        "Ports": printer::ports(&summary.ports),
        "State": state.status.name(),
        "Status": status,
        "Names": summary.name.as_str(),
        "Labels": labels.join(","),
        "Networks": summary.config.host.network.to_string(),
    })
}
