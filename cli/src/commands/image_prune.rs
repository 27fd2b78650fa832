//! `berth image prune`.

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Prune {
    /// All images no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub fn run(args: Prune, context: &Context) -> Result<Exit> {
    let question = if args.all {
        "This removes all images without a container."
    } else {
        "This removes all images without a name."
    };
    if !args.force && !super::confirmed(question)? {
        return Ok(Exit::Success);
    }
    let bytes = unused(args.all, context)?;
    printer::line(&format!("Total reclaimed space: {}", printer::decimal(bytes)))?;
    Ok(Exit::Success)
}

/// Removes what no container uses; returns the bytes given back.
pub fn unused(all: bool, context: &Context) -> Result<u64> {
    let removed = context.images()?.prune(all, &|| super::uses(context))?;
    for name in &removed.untagged {
        printer::line(&format!("untagged: {}", printer::harmless(name)))?;
    }
    for digest in &removed.deleted {
        printer::line(&format!("deleted: {digest}"))?;
    }
    Ok(removed.reclaimed)
}
