//! `berth rm`.

use berth_engine::RemoveOptions;
use clap::Args;

use super::each;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Remove {
    /// Kill it first if it runs
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
    each(&args.containers, |name| {
        let id = match engine.find(name) {
            Err(berth_engine::Error::NoSuchContainer(_)) if args.force => return Ok(()),
            found => found?,
        };
        Ok(engine.remove(
            &id,
            RemoveOptions {
                force: args.force,
                volumes: args.volumes,
            },
        )?)
    })
}
