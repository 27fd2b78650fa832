//! `berth-vmm`: one microVM, with Firecracker's flags, configuration file and API.

mod arguments;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use berth_vmm::api::Server;
use berth_vmm::control::Controller;
use berth_vmm::metrics::Metrics;
use berth_vmm::{Exit, Result, logger, run, snapshot};

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(exit) => return exit.into(),
    };
    match start(&arguments) {
        Ok(exit) => exit.into(),
        Err(e) => {
            let text = e.told();
            log::error!("{text:?}");
            eprintln!("berth-vmm: {text}");
            e.exit().into()
        }
    }
}

#[allow(clippy::print_stdout)] // what was asked for
fn tell_version(version: u32) -> Exit {
    println!("{version}");
    Exit::PoweredOff
}

fn start(arguments: &Arguments) -> Result<Exit> {
    if arguments.snapshot_version {
        return Ok(tell_version(snapshot::VERSION));
    }
    if let Some(path) = &arguments.describe_snapshot {
        return snapshot::version(path).map(tell_version);
    }
    let seccomp = arguments.seccomp();
    seccomp.prepare()?;
    logger::start(&arguments.id);
    if let Some(settings) = arguments.logger() {
        logger::update(&settings)?;
    }
    let metrics = Arc::<Metrics>::default();
    let mut controller = Controller::new(arguments.id.clone(), metrics.clone(), seccomp, arguments.jail())?;
    if let Some(settings) = arguments.metrics() {
        controller.write_metrics(settings)?;
    }
    // Before the machine: a path that is taken is told at once.
    let server = match arguments.socket() {
        Some(path) => Some(Server::bind(path, arguments.http_api_max_payload_size)?),
        None => None,
    };
    metrics.api_server.is_up(arguments.started());
    if let Some(path) = &arguments.config_file {
        controller.start_from(path)?;
    }
    run::run(controller, server, io::stdin().as_fd())
}
