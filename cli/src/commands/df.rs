//! `berth system df`.

use berth_engine::ListOptions;
use berth_engine::volumes::disk_usage;
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer::{Rows, decimal};

#[derive(Debug, Args)]
pub struct Usage {
    /// table, json, or a Go template
    #[arg(long)]
    format: Option<String>,
}

pub fn run(args: Usage, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let images = context.images()?.df(&|| super::uses(context))?;
    let mut containers = (0, 0, 0, 0);
    for summary in engine.list(&ListOptions {
        all: true,
        ..ListOptions::default()
    })? {
        let size = disk_usage(&engine.paths().upper(&summary.id));
        let runs = summary.state.status.needs_shim();
        containers.0 += 1;
        containers.1 += usize::from(runs);
        containers.2 += size;
        containers.3 += if runs { 0 } else { size };
    }
    let volumes = context.volumes();
    let mut named = (0, 0, 0, 0);
    for volume in volumes.list()? {
        let size = volumes.size(&volume);
        let used = !volumes.users(&volume.name)?.is_empty();
        named.0 += 1;
        named.1 += usize::from(used);
        named.2 += size;
        named.3 += if used { 0 } else { size };
    }
    let row = |kind: &str, (total, active, size, free): (usize, usize, u64, u64)| {
        let percent = if size == 0 {
            0
        } else {
            u128::from(free) * 100 / u128::from(size)
        };
        json!({
            "Type": kind, "TotalCount": total.to_string(), "Active": active.to_string(), "Size": decimal(size),
            "Reclaimable": format!("{} ({percent}%)", decimal(free)),
        })
    };
    let held = images.layers.saturating_add(images.blobs);
    let rows = Rows {
        headings: &[
            ("Type", "TYPE"),
            ("TotalCount", "TOTAL"),
            ("Active", "ACTIVE"),
            ("Size", "SIZE"),
            ("Reclaimable", "RECLAIMABLE"),
        ],
        table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        quiet: None,
        rows: vec![
            row("Images", (images.images, images.active, held, images.reclaimable)),
            row("Containers", containers),
            row("Local Volumes", named),
        ],
    };
    rows.print(args.format.as_deref(), false)?;
    Ok(Exit::Success)
}
