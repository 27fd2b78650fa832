//! `berth import`.

use clap::Args;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};

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
    let (mut tar, object): (Box<dyn Read + Send>, _) = match args.file.as_str() {
        "-" if io::stdin().is_terminal() => {
            return Err(
                Failure::new("a tar is not read from a terminal").with_hint("give the name of a file")
            );
        }
        "-" => (Box::new(io::stdin()), "standard input"),
        url if url.contains("://") => {
            return Err(Failure::unsupported(
                &format!("import from {url}"),
                "fetch it first, `curl -L URL | berth import - NAME`",
            ));
        }
        path => {
            let file = File::open(path).map_err(|e| Failure::from(e).during("open", path))?;
            (Box::new(BufReader::with_capacity(1 << 16, file)), path)
        }
    };
    let images = context.images()?;
    let id = images
        .import(&mut tar, name.as_ref(), &options)
        .map_err(|e| Failure::from(e).during("import", object))?;
    context.happened(berth_engine::events::Kind::Image, "import", &id.to_string())?;
    printer::line(&id.to_string())?;
    Ok(Exit::Success)
}
