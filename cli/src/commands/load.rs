//! `berth load`.

use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;

use berth_images::archive::LoadFrom;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::printer;

#[derive(Debug, Args)]
pub struct Load {
    /// Read a file or layout directory instead of standard input
    #[arg(short, long)]
    input: Option<PathBuf>,
    /// Accepted for docker's sake: there is no progress to hide
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: Load, context: &Context) -> Result<Exit> {
    let images = context.images()?;
    let loaded = match &args.input {
        Some(path) => images
            .load(LoadFrom::Path(path))
            .map_err(|e| Failure::from(e).during("load", path.display()))?,
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::new("an archive is not read from a terminal").with_hint("use -i FILE"));
        }
        None => images
            .load(LoadFrom::Stream(&mut std::io::stdin()))
            .map_err(|e| Failure::from(e).during("load", "standard input"))?,
    };
    for image in loaded {
        context.happened(berth_engine::events::Kind::Image, "load", &image.id.to_string())?;
        if image.names.is_empty() {
            printer::line(&format!("Loaded image ID: {}", image.id))?;
        }
        for name in &image.names {
            printer::line(&format!("Loaded image: {}", printer::harmless(name)))?;
        }
    }
    Ok(Exit::Success)
}
