//! `berth rm`.

use berth_engine::RemoveOptions;
use clap::Args;

use super::each_silently;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::printer;

#[derive(Debug, Args)]
pub struct Remove {
    /// Kill it first if it runs; one that is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// Its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Remove, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let options = RemoveOptions {
        force: args.force,
        volumes: args.volumes,
    };
    each_silently(&args.containers, |name| {
        match engine.find(name).and_then(|id| engine.remove(&id, options)) {
            // What should not be there is not there: told, and no failure.
            Err(error @ berth_engine::Error::NoSuchContainer(_)) if args.force => {
                Failure::from(error).report();
                Ok(())
            }
            removed => {
                removed?;
                printer::line(&printer::harmless(name))
            }
        }
    })
}
