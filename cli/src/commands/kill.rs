//! `berth kill`.

use berth_engine::flags::Signal;
use clap::Args;

use super::each;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Kill {
    /// Signal to send
    #[arg(short, long, default_value = "KILL")]
    signal: Signal,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Kill, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    each(&args.containers, |name| {
        Ok(engine.kill(&engine.find(name)?, args.signal)?)
    })
}
