//! `berth tag`.

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Tag {
    /// Image
    source: String,
    /// Its new name
    target: String,
}

pub fn run(args: Tag, context: &Context) -> Result<Exit> {
    context.images()?.tag(&args.source, &args.target)?;
    context.happened(berth_engine::events::Kind::Image, "tag", &args.target)?;
    Ok(Exit::Success)
}
