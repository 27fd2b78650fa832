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
    let files = engine.own_files(&engine.find(&args.container)?)?;
    output::whole(args.output.as_deref(), |out| {
        berth_images::archive::export(files.root().as_dir(), out)?;
        Ok(())
    })?;
    Ok(Exit::Success)
}
