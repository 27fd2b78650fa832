//! `berth start`.

use std::cell::RefCell;

use berth_engine::{
    AttachOptions, Engine, Error, ListFilter, ListOptions, StartOptions, Status, attach::DetachKeys,
};
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;

#[derive(Debug, Args)]
pub struct Start {
    /// All that fit --filter and do not run
    #[arg(long, conflicts_with_all = ["attach", "interactive", "containers"])]
    all: bool,
    /// Attach to its output
    #[arg(short, long)]
    attach: bool,
    /// With --all, only those that fit
    #[arg(short, long = "filter", requires = "all")]
    filter: Vec<ListFilter>,
    /// Attach to its input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Containers
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(args: Start, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    if !args.attach && !args.interactive {
        let failed = RefCell::new(Vec::new());
        let start = |name: &str| match engine
            .find(name)
            .and_then(|id| engine.start(&id, &StartOptions::default()))
        {
            // docker's start of what runs already is fine.
            Ok(_)
            | Err(Error::Wrong {
                status: Status::Running | Status::Restarting,
                ..
            }) => Ok(()),
            Err(error) => {
                failed.borrow_mut().push(name.to_owned());
                Err(error.into())
            }
        };
        let names = if args.all {
            stopped(&engine, args.filter)?
        } else {
            args.containers
        };
        let exit = super::each(&names, start)?;
        let failed = failed.into_inner();
        if failed.is_empty() {
            return Ok(exit);
        }
        return Err(Failure::new(format!(
            "failed to start containers: {}",
            failed.join(", ")
        )));
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
        is_new: false,
    };
    let session = match engine.start(&id, &options) {
        Err(Error::Wrong {
            status: Status::Running,
            ..
        }) => Some(engine.attach(&id, &attach)?),
        // The code is docker's: 127 and the like are `run`'s alone.
        other => other?,
    };
    session.map_or(Ok(Exit::Success), |session| Ok(super::ended(session.run()?)))
}

/// Names of those that do not run and fit, oldest first: a container may need one made before it.
fn stopped(engine: &Engine, filters: Vec<ListFilter>) -> Result<Vec<String>> {
    let options = ListOptions {
        all: true,
        last: None,
        filters,
    };
    let fit = engine.list(&options)?.into_iter().rev();
    let resting = fit.filter(|summary| !summary.state.status.needs_shim());
    Ok(resting.map(|summary| summary.name.to_string()).collect())
}
