//! `berth stop`.

use berth_engine::StopOptions;
use berth_engine::flags::Signal;
use clap::Args;

use super::each;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Stop {
    /// Signal instead of the container's stop signal
    #[arg(short, long)]
    signal: Option<Signal>,
    /// Seconds to wait before killing; -1 waits for ever
    #[arg(
        short = 't',
        long = "timeout",
        visible_alias = "time",
        allow_hyphen_values = true
    )]
    timeout: Option<i64>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Stop, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let options = StopOptions {
        signal: args.signal,
        timeout: args.timeout,
    };
    each(&args.containers, |name| {
        Ok(engine.stop(&engine.find(name)?, &options)?)
    })
}
