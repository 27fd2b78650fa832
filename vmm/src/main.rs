//! `berth-vmm`: one microVM from a configuration file, with Firecracker's flags.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use berth_vmm::{Exit, boot, config::Config, run};
use clap::Parser;

/// Runs one microVM
#[derive(Debug, Parser)]
#[command(name = "berth-vmm", version)]
struct Arguments {
    /// The configuration, in JSON
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Serve no API; the configuration file says everything
    #[arg(long)]
    no_api: bool,
    /// Socket of the API (not supported yet: use --no-api with --config-file)
    #[arg(long, value_name = "PATH")]
    api_sock: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() {
                Exit::BadArguments
            } else {
                Exit::PoweredOff
            }
            .into();
        }
    };
    let Some(file) = arguments
        .config_file
        .filter(|_| arguments.no_api && arguments.api_sock.is_none())
    else {
        eprintln!("berth-vmm: the API is not supported yet: give --no-api and --config-file FILE");
        return Exit::BadArguments.into();
    };
    match start(&file) {
        Ok(exit) => exit.into(),
        Err(e) => {
            eprintln!("berth-vmm: {}", e.told());
            e.exit().into()
        }
    }
}

fn start(file: &std::path::Path) -> berth_vmm::Result<Exit> {
    let config = Config::read(file)?;
    let machine = boot::boot(&config, Box::new(io::stdout()))?;
    run::run(machine, io::stdin().as_fd())
}
