//! `berth ps`.

use berth_engine::flags::{MountKind, MountSpec};
use berth_engine::{ListFilter, ListOptions, Summary};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Size;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer::{self, Rows};
use crate::template::LABEL;

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
    /// Show how much each takes on disk
    #[arg(short, long)]
    size: bool,
}

pub fn run(args: Ps, context: &Context) -> Result<Exit> {
    let last = if args.latest { Some(1) } else { args.last };
    let options = ListOptions {
        all: args.all,
        last,
        filters: args.filter,
    };
    let now = Timestamp::now();
    // Sizes take a walk over each container's files, so only for who asks.
    let wants_size = args.size || args.format.as_deref().is_some_and(|text| text.contains(".Size"));
    let mut rows = Vec::new();
    for summary in context.engine()?.list(&options)? {
        let mut row = row(&summary, args.no_trunc, now);
        if wants_size {
            let size = Size::of(&summary.id, &summary.config, context)?;
            row["Size"] = json!(format!(
                "{} (virtual {})",
                printer::decimal(size.written),
                printer::decimal(size.written + size.image)
            ));
        }
        rows.push(row);
    }
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
            ("Mounts", "MOUNTS"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("Size", "SIZE"),
        ],
        table: if args.size {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}"
        } else {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
        },
        quiet: Some("{{.ID}}"),
        rows,
    };
    rows.print(args.format.as_deref(), args.quiet)?;
    Ok(Exit::Success)
}

/// The fields of a container in lists.
pub fn row(summary: &Summary, whole: bool, now: Timestamp) -> Value {
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
    let mounts: Vec<String> = summary
        .config
        .host
        .mounts
        .iter()
        .filter_map(|mount| source(mount, whole))
        .collect();
    let volumes = summary.config.host.mounts.iter();
    let volumes = volumes.filter(|mount| matches!(mount.kind, MountKind::Volume { .. }));
    let mut row = json!({
        "ID": if whole { summary.id.as_str() } else { summary.id.short() },
        "Image": summary.image,
        "Command": format!("\"{command}\""),
        "CreatedAt": printer::stamp(summary.created),
        "RunningFor": printer::ago(summary.created, now),
        "Ports": printer::ports(&summary.ports),
        "State": state.status.name(),
        "Status": status,
        "Names": summary.name.as_str(),
        "Labels": labels.join(","),
        "Networks": summary.networks().join(","),
        "Mounts": mounts.join(","),
        "LocalVolumes": volumes.count().to_string(),
        "Size": "0B",
    });
    row[LABEL] = json!(summary.labels);
    row
}

/// A volume's name or a bind's path, cut as docker cuts it.
fn source(mount: &MountSpec, whole: bool) -> Option<String> {
    let text = match &mount.kind {
        MountKind::Volume { name, .. } => name.clone().unwrap_or_default(),
        MountKind::Bind { source, .. } => source.display().to_string(),
        MountKind::Tmpfs { .. } => return None,
    };
    Some(match text.char_indices().nth(14) {
        Some((end, _)) if !whole && text.chars().count() > 15 => format!("{}…", &text[..end]),
        _ => text,
    })
}
