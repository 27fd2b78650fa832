//! `berth save`.

use clap::Args;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use berth_images::archive::{Format, SaveTo};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Save {
    /// docker-archive, oci-archive or oci-dir
    #[arg(long, default_value = "docker-archive")]
    format: Format,
    /// Write to a file or directory instead of standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(args: Save, context: &Context) -> Result<Exit> {
    let images = context.images()?;
    let names: Vec<&str> = args.images.iter().map(String::as_str).collect();
    match (args.format, &args.output) {
        (Format::OciDir, Some(path)) => images.save(&names, args.format, SaveTo::Directory(path))?,
        (Format::OciDir, None) => return Err(Failure::new("oci-dir needs -o DIRECTORY")),
        (_, Some(path)) => {
            let file =
                File::create(path).map_err(|e| Failure::new(format!("create {}: {e}", path.display())))?;
            let mut out = BufWriter::new(file);
            images.save(&names, args.format, SaveTo::Stream(&mut out))?;
            out.flush()?;
        }
        (_, None) if io::stdout().is_terminal() => {
            return Err(Failure::new("an archive is not written to a terminal").with_hint("use -o FILE"));
        }
        (_, None) => {
            let mut out = BufWriter::new(io::stdout().lock());
            images.save(&names, args.format, SaveTo::Stream(&mut out))?;
            out.flush()?;
        }
    }
    Ok(Exit::Success)
}
