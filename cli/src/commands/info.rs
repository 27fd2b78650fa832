//! `berth info`.

use berth_engine::{ListOptions, Status};
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Info {
    /// json or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

pub fn run(args: Info, context: &Context) -> Result<Exit> {
    let containers = context.engine()?.list(&ListOptions {
        all: true,
        ..ListOptions::default()
    })?;
    let count = |status: Status| containers.iter().filter(|c| c.state.status == status).count();
    let (running, paused) = (count(Status::Running), count(Status::Paused));
    let uname = rustix::system::uname();
    let memory = rustix::system::sysinfo();
    let value = json!({
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused,
        "Images": context.images()?.list()?.len(),
        "Driver": "overlay",
        "LoggingDriver": "json-file",
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "KernelVersion": uname.release().to_string_lossy(),
        "Architecture": uname.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": memory.totalram.saturating_mul(u64::from(memory.mem_unit)),
        "Name": uname.nodename().to_string_lossy(),
        "DockerRootDir": context.root,
        "StateDir": context.state,
    });
    match args.format.as_deref() {
        None | Some("") => {}
        // One object, as docker's; a list is for verbs that take names.
        Some("json") => {
            printer::line(&value.to_string())?;
            return Ok(Exit::Success);
        }
        format => {
            printer::inspect(vec![value], format)?;
            return Ok(Exit::Success);
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        printer::line(&format!("{key}: {}", printer::harmless(&value)))?;
    }
    Ok(Exit::Success)
}
