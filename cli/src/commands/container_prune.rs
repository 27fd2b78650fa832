//! `berth container prune`.

use berth_engine::volumes::disk_usage;
use berth_engine::{ListOptions, RemoveOptions};
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::filter::{Filter, PruneFilter};
use crate::printer;

#[derive(Debug, Args)]
pub struct Prune {
    /// until, label, label!
    #[arg(long = "filter")]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub fn run(args: Prune, context: &Context) -> Result<Exit> {
    let filter = PruneFilter::new(&args.filter, true)?;
    if !args.force && !super::confirmed("This removes all stopped containers.")? {
        return Ok(Exit::Success);
    }
    let bytes = stopped(&filter, context)?;
    printer::line(&format!("Total reclaimed space: {}", printer::decimal(bytes)))?;
    Ok(Exit::Success)
}

/// Removes containers that do not run and tells them; returns the bytes given back.
pub fn stopped(filter: &PruneFilter, context: &Context) -> Result<u64> {
    let engine = context.engine()?;
    let (mut bytes, mut gone) = (0, Vec::new());
    for summary in engine.list(&ListOptions {
        all: true,
        ..ListOptions::default()
    })? {
        let label = |key: &str| summary.labels.get(key).map(String::as_str);
        if summary.state.status.needs_shim() || !filter.fits(Some(summary.created), label) {
            continue;
        }
        let size = disk_usage(&engine.paths().upper(&summary.id));
        match engine.remove(
            &summary.id,
            RemoveOptions {
                force: false,
                volumes: false,
            },
        ) {
            Ok(()) => {
                gone.push(summary.id.to_string());
                bytes += size;
            }
            // Started or removed meanwhile.
            Err(berth_engine::Error::Wrong { .. } | berth_engine::Error::NoSuchContainer(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    super::deleted("Containers", gone.into_iter())?;
    Ok(bytes)
}
