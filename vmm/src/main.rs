//! `berth-vmm`: one microVM, with Firecracker's flags, configuration file and API.

mod arguments;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use berth_vmm::api::Server;
use berth_vmm::control::Controller;
use berth_vmm::keeper::{self, End};
use berth_vmm::metrics::Metrics;
use berth_vmm::run::{self, Clients};
use berth_vmm::{Error, Exit, Result, logger, snapshot};
use rustix::process::{Resource, Rlimit, Signal};

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(exit) => return exit.into(),
    };
    match start(&arguments) {
        Ok(ended) => end(ended),
        Err(Error::Stopped(signal)) => end(End::Signal(signal)),
        Err(e) => {
            let text = e.told();
            log::error!("{text:?}");
            eprintln!("berth-vmm: {text}");
            e.exit().into()
        }
    }
}

#[allow(clippy::print_stdout)] // what was asked for
fn tell_version(version: u32) -> End {
    println!("{version}");
    Exit::PoweredOff.into()
}

fn start(arguments: &Arguments) -> Result<End> {
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
        controller.configure(path)?;
    }
    let (starts, input) = (arguments.config_file.is_some(), io::stdin());
    if arguments.jail().is_some() {
        return keeper::keep(controller, server, starts, input.as_fd());
    }
    if starts {
        controller.start()?;
    }
    let clients = server.map_or(Clients::None, Clients::Server);
    run::run(controller, clients, input.as_fd()).map(End::from)
}

/// Ends as the machine's process did.
fn end(end: End) -> ExitCode {
    match end {
        End::Status(status) => status.into(),
        End::Signal(number) => {
            // A core of the machine's is there already, if there is to be any.
            let none = Rlimit {
                current: Some(0),
                maximum: Some(0),
            };
            let _ = rustix::process::setrlimit(Resource::Core, none);
            if let Some(signal) = Signal::from_named_raw(number) {
                let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
            }
            // The first process of a namespace does not hear of it.
            u8::try_from(128 + number).unwrap_or(u8::MAX).into()
        }
    }
}
