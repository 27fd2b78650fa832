//! `berth unpause`.

use clap::Args;

use super::each;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Unpause {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Unpause, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    each(&args.containers, |name| Ok(engine.unpause(&engine.find(name)?)?))
}
