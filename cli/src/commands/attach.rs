//! `berth attach`.

use berth_engine::{AttachOptions, attach::DetachKeys};
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Attach {
    /// Keys that detach
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Do not forward standard input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container: on unless --sig-proxy=false
    #[arg(long, default_value_t = true)]
    sig_proxy: bool,
    /// Container
    container: String,
}

pub fn run(args: Attach, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let id = engine.find(&args.container)?;
    let options = AttachOptions {
        stdin: !args.no_stdin && engine.config(&id)?.open_stdin,
        detach_keys: args.detach_keys,
        sig_proxy: args.sig_proxy,
        ..AttachOptions::default()
    };
    Ok(super::ended(engine.attach(&id, &options)?.run()?))
}
