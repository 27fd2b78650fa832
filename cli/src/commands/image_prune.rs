//! `berth image prune`.

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
}

pub fn run(args: Prune, context: &Context) -> Result<Exit> {
    let filter = PruneFilter::new(&args.filter, true)?;
    let question = if args.all {
        "This removes all images without a container."
    } else {
        "This removes all images without a name."
    };
    if !args.force && !super::confirmed(question)? {
        return Ok(Exit::Success);
    }
    let bytes = unused(args.all, &filter, context)?;
    printer::line(&format!("Total reclaimed space: {}", printer::decimal(bytes)))?;
    Ok(Exit::Success)
}

/// Removes what no container uses and tells it; returns the bytes given back.
pub fn unused(all: bool, filter: &PruneFilter, context: &Context) -> Result<u64> {
    let wanted = |config: &berth_images::ImageConfig| {
        let created = config.created.as_deref().and_then(|text| text.parse().ok());
        filter.fits(created, |key| config.config.labels.get(key).map(String::as_str))
    };
    let removed = context.images()?.prune(all, &wanted, &|| super::uses(context))?;
    let untagged = removed.untagged.iter().map(|name| format!("untagged: {name}"));
    let deleted = removed.deleted.iter().map(|digest| format!("deleted: {digest}"));
    super::deleted("Images", untagged.chain(deleted))?;
    Ok(removed.reclaimed)
}
