//! `berth pause`.

use clap::Args;

use super::each;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Pause {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Pause, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    each(&args.containers, |name| Ok(engine.pause(&engine.find(name)?)?))
}
