//! `berth export`.

use clap::Args;
use std::path::PathBuf;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::output;

#[derive(Debug, Args)]
pub struct Export {
    /// Write to a file instead of standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Container
    container: String,
}

pub fn run(args: Export, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let id = engine.find(&args.container)?;
    output::whole(args.output.as_deref(), |out| Ok(engine.export(&id, out)?))?;
    Ok(Exit::Success)
}
