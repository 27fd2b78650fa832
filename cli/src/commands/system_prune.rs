//! `berth system prune`.

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::filter::{Filter, PruneFilter};
use crate::printer;

#[derive(Debug, Args)]
pub struct Prune {
    /// All images no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// until, label, label!
    #[arg(long = "filter")]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Anonymous volumes too
    #[arg(long)]
    volumes: bool,
}

pub fn run(args: Prune, context: &Context) -> Result<Exit> {
    let filter = PruneFilter::new(&args.filter, !args.volumes)?;
    if !args.force
        && !super::confirmed("This removes stopped containers, unused networks and unused images.")?
    {
        return Ok(Exit::Success);
    }
    let mut bytes = super::container_prune::stopped(&filter, context)?;
    super::network::unused(&filter, context)?;
    if args.volumes {
        bytes += super::volume::unused(false, &filter, context)?;
    }
    bytes += super::image_prune::unused(args.all, &filter, context)?;
    printer::line(&format!("Total reclaimed space: {}", printer::decimal(bytes)))?;
    Ok(Exit::Success)
}
