//! `berth logout`.

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Logout {
    /// Registry
    #[arg(default_value = "docker.io")]
    registry: String,
}

pub fn run(args: Logout, context: &Context) -> Result<Exit> {
    let was = context.images()?.logout(&args.registry)?;
    let registry = printer::harmless(&args.registry);
    printer::line(&if was {
        format!("Removed login credentials for {registry}")
    } else {
        format!("Not logged in to {registry}")
    })?;
    Ok(Exit::Success)
}
