//! `berth system prune`.

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
    /// Anonymous volumes too
    #[arg(long)]
    volumes: bool,
}

pub fn run(args: Prune, context: &Context) -> Result<Exit> {
    if !args.force
        && !super::confirmed("This removes stopped containers, unused networks and unused images.")?
    {
        return Ok(Exit::Success);
    }
    let mut bytes = super::container_prune::stopped(context)?;
    for network in context.networks()?.prune()? {
        printer::line(&format!("Deleted network: {network}"))?;
    }
    if args.volumes {
        let (names, size) = context.volumes().prune(false, |_| true)?;
        for name in names {
            printer::line(&format!("Deleted volume: {name}"))?;
        }
        bytes += size;
    }
    bytes += super::image_prune::unused(args.all, context)?;
    printer::line(&format!("Total reclaimed space: {}", printer::decimal(bytes)))?;
    Ok(Exit::Success)
}
