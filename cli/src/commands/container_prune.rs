//! `berth container prune`.

use berth_engine::volumes::disk_usage;
use berth_engine::{ListOptions, RemoveOptions};
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub fn run(args: Prune, context: &Context) -> Result<Exit> {
    if !args.force && !super::confirmed("This removes all stopped containers.")? {
        return Ok(Exit::Success);
    }
    let bytes = stopped(context)?;
    printer::line(&format!("Total reclaimed space: {}", printer::decimal(bytes)))?;
    Ok(Exit::Success)
}

/// Removes every container that does not run; returns the bytes given back.
pub fn stopped(context: &Context) -> Result<u64> {
    let engine = context.engine()?;
    let mut bytes = 0;
    for summary in engine.list(&ListOptions {
        all: true,
        ..ListOptions::default()
    })? {
        if summary.state.status.needs_shim() {
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
                printer::line(&format!("Deleted container: {}", summary.id))?;
                bytes += size;
            }
            // Started or removed meanwhile.
            Err(berth_engine::Error::Wrong { .. } | berth_engine::Error::NoSuchContainer(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(bytes)
}
