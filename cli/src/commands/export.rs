//! `berth export`.

use clap::Args;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;

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
    let mut out: Box<dyn Write> = match &args.output {
        Some(path) => {
            Box::new(BufWriter::new(File::create(path).map_err(|e| {
                Failure::new(format!("create {}: {e}", path.display()))
            })?))
        }
        None if io::stdout().is_terminal() => {
            return Err(Failure::new("a tar is not written to a terminal").with_hint("use -o FILE"));
        }
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    berth_images::archive::export(files.root().as_dir(), &mut out)?;
    out.flush()?;
    Ok(Exit::Success)
}
