//! `berth top`.

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Top {
    /// Container
    container: String,
    /// Options of ps
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub fn run(args: Top, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let top = engine.top(&engine.find(&args.container)?, &args.options)?;
    printer::columns(std::iter::once(&top.titles).chain(&top.processes))?;
    Ok(Exit::Success)
}
