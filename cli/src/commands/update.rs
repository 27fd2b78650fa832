//! `berth update`.

use berth_engine::UpdateRequest;
use berth_engine::flags::RestartPolicy;
use clap::Args;

use crate::container_args::ResourceArgs;

use super::each;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
pub struct Update {
    #[command(flatten)]
    resources: ResourceArgs,
    /// Restart policy
    #[arg(long)]
    restart: Option<RestartPolicy>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Update, context: &Context) -> Result<Exit> {
    let request = UpdateRequest {
        resources: args.resources.into(),
        restart: args.restart,
    };
    if request == UpdateRequest::default() {
        return Err(
            Failure::new("nothing to update").with_hint("give one or more flags; see berth update --help")
        );
    }
    let engine = context.engine()?;
    each(&args.containers, |name| {
        Ok(engine.update(&engine.find(name)?, &request)?)
    })
}
