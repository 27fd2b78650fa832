//! `berth load`.

use clap::Args;
use std::path::PathBuf;

use berth_images::archive::LoadFrom;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Load {
    /// Read a file or layout directory instead of standard input
    #[arg(short, long)]
    input: Option<PathBuf>,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: Load, context: &Context) -> Result<Exit> {
    let images = context.images()?;
    let loaded = match &args.input {
        Some(path) => images.load(LoadFrom::Path(path))?,
        None => images.load(LoadFrom::Stream(&mut std::io::stdin()))?,
    };
    for image in loaded {
        context.happened(berth_engine::events::Kind::Image, "load", &image.id.to_string())?;
        if args.quiet {
            continue;
        }
        if image.names.is_empty() {
            printer::line(&format!("Loaded image ID: {}", image.id))?;
        }
        for name in &image.names {
            printer::line(&format!("Loaded image: {}", printer::harmless(name)))?;
        }
    }
    Ok(Exit::Success)
}
