//! `berth import`.

use clap::Args;
use std::fs::File;

use berth_images::Platform;
use berth_images::archive::ImportOptions;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Import {
    /// Apply a Dockerfile instruction
    #[arg(short, long = "change")]
    change: Vec<String>,
    /// Comment in the history
    #[arg(short, long)]
    message: Option<String>,
    /// What the image runs on
    #[arg(long, value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// A tar file, or - for standard input
    file: String,
    /// Name of the image
    name: Option<String>,
}

pub fn run(args: Import, context: &Context) -> Result<Exit> {
    let name = args.name.as_deref().map(super::pull::parse).transpose()?;
    let options = ImportOptions {
        changes: args.change,
        message: args.message,
        platform: args.platform,
    };
    let images = context.images()?;
    let id = if args.file == "-" {
        images.import(&mut std::io::stdin(), name.as_ref(), &options)?
    } else {
        let file = File::open(&args.file).map_err(|e| Failure::new(format!("open {}: {e}", args.file)))?;
        images.import(
            &mut std::io::BufReader::with_capacity(1 << 16, file),
            name.as_ref(),
            &options,
        )?
    };
    context.happened(berth_engine::events::Kind::Image, "import", &id.to_string())?;
    printer::line(&id.to_string())?;
    Ok(Exit::Success)
}
