//! `berth push`.

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;
use crate::progress;

#[derive(Debug, Args)]
pub struct Push {
    /// Say nothing while pushing
    #[arg(short, long)]
    quiet: bool,
    /// Image
    image: String,
}

pub fn run(args: Push, context: &Context) -> Result<Exit> {
    let reference = super::pull::parse(&args.image)?;
    let digest = context
        .registries()?
        .push(&reference, progress::choose(args.quiet).as_ref())?;
    context.happened(berth_engine::events::Kind::Image, "push", &reference.to_string())?;
    printer::line(&if args.quiet {
        reference.to_string()
    } else {
        format!("{reference}: digest: {digest}")
    })?;
    Ok(Exit::Success)
}
