//! `berth rename`.

use berth_engine::ContainerName;
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Rename {
    /// Container
    container: String,
    /// New name
    name: ContainerName,
}

pub fn run(args: Rename, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    engine.rename(&engine.find(&args.container)?, &args.name)?;
    Ok(Exit::Success)
}
