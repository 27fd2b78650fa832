//! `berth start`.

use berth_engine::{AttachOptions, Error, StartOptions, Status, attach::DetachKeys};
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Start {
    /// Attach to its output
    #[arg(short, long)]
    attach: bool,
    /// Attach to its input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Start, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    if !args.attach && !args.interactive {
        return super::each(&args.containers, |name| {
            match engine.start(&engine.find(name)?, &StartOptions::default()) {
                // docker's start of what runs already is fine.
                Ok(_)
                | Err(Error::Wrong {
                    status: Status::Running | Status::Restarting,
                    ..
                }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
    }
    let [name] = args.containers.as_slice() else {
        return Err(Failure::new("only one container can be attached to at a time"));
    };
    let id = engine.find(name)?;
    let attach = AttachOptions {
        stdin: args.interactive && engine.config(&id)?.open_stdin,
        detach_keys: args.detach_keys,
        ..AttachOptions::default()
    };
    let options = StartOptions {
        attach: Some(attach.clone()),
    };
    let session = match engine.start(&id, &options) {
        Err(Error::Wrong {
            status: Status::Running,
            ..
        }) => Some(engine.attach(&id, &attach)?),
        other => other.map_err(super::run_failure)?,
    };
    session.map_or(Ok(Exit::Success), |session| Ok(super::ended(session.run()?)))
}
