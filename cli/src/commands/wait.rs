//! `berth wait`.

use berth_engine::WaitCondition;
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Wait {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Wait, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    super::each_silently(&args.containers, |name| {
        let code = engine.wait(&engine.find(name)?, WaitCondition::NotRunning)?;
        printer::line(&code.to_string())
    })
}
