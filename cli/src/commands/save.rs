//! `berth save`.

use clap::Args;
use std::path::PathBuf;

use berth_images::archive::{Format, SaveTo};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::output;

#[derive(Debug, Args)]
pub struct Save {
    /// docker-archive, oci-archive or oci-dir
    #[arg(long, default_value = "docker-archive")]
    format: Format,
    /// Write to a file or directory instead of standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Images; of a repository all tags
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(args: Save, context: &Context) -> Result<Exit> {
    let images = context.images()?;
    let names: Vec<&str> = args.images.iter().map(String::as_str).collect();
    match (args.format, &args.output) {
        (Format::OciDir, Some(path)) => images.save(&names, args.format, SaveTo::Directory(path))?,
        (Format::OciDir, None) => return Err(Failure::new("oci-dir needs -o DIRECTORY")),
        (_, path) => output::whole(path.as_deref(), |out| {
            Ok(images.save(&names, args.format, SaveTo::Stream(out))?)
        })?,
    }
    Ok(Exit::Success)
}
