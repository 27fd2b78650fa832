//! runc's command line: global flags, verbs, exit codes.

mod control;
mod create;
mod events;
mod exec;
mod features;
mod figures;
mod foreground;
mod list;
mod spec;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use berth_runtime::{Container, ContainerId, Error, StateRoot};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::report::Report;

/// An OCI runtime: runs containers from bundles, with runc's command line.
#[derive(Parser)]
#[command(name = "berth-runtime", version = VERSION, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

/// Flags before the verb.
#[derive(Args)]
pub struct Global {
    /// Directory for the state of containers (should be on tmpfs)
    #[arg(long, default_value = "/run/berth-runtime")]
    pub root: PathBuf,
    /// File to append errors to, beside stderr
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Form of the log file, or of what is said on stderr without one
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Taken for runc's sake; every error carries its whole cause already
    #[arg(long)]
    pub debug: bool,
    /// Not supported: cgroups are made directly
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Whether to expect to be without privilege (true, false, auto); what the kernel allows decides
    #[arg(long, default_value = "auto", value_parser = ["true", "false", "auto"])]
    pub rootless: String,
}

/// Form of the log file.
#[derive(Clone, Copy, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What to do.
#[derive(Subcommand)]
pub enum Verb {
    /// Create a container, up to its program
    Create(create::CreateArgs),
    /// Start a created container's program
    Start(control::IdArgs),
    /// Create and start a container
    Run(create::RunArgs),
    /// Print a container's state as JSON
    State(control::IdArgs),
    /// Send a signal to a container's init
    Kill(control::KillArgs),
    /// Remove a stopped container
    Delete(control::DeleteArgs),
    /// Run another program in a running container
    Exec(exec::ExecArgs),
    /// List containers
    List(list::ListArgs),
    /// List a container's processes
    Ps(list::PsArgs),
    /// Freeze a container
    Pause(control::IdArgs),
    /// Let a frozen container go on
    Resume(control::IdArgs),
    /// Change a container's limits
    Update(update::UpdateArgs),
    /// Print a container's figures and out-of-memory events as JSON lines
    Events(events::EventsArgs),
    /// Write a new config.json
    Spec(spec::SpecArgs),
    /// Print what this runtime can do as JSON
    Features,
}

/// What a failed command leaves.
pub struct Failure {
    pub message: String,
    pub code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            message: error.chain(),
            code: 1,
        }
    }
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
        }
    }
}

pub type Outcome = Result<ExitCode, Failure>;

/// Runs the verb.
pub fn run(cli: Cli, report: &Report) -> Outcome {
    if cli.global.systemd_cgroup {
        return Err(Failure::new(
            "not supported: --systemd-cgroup: berth makes cgroups itself; use the cgroupfs driver",
        ));
    }
    let root = StateRoot::new(cli.global.root);
    match cli.verb {
        Verb::Create(args) => create::create(&root, args, report),
        Verb::Run(args) => create::run(&root, args, report),
        Verb::Start(args) => control::start(&root, &args),
        Verb::State(args) => control::state(&root, &args),
        Verb::Kill(args) => control::kill(&root, &args),
        Verb::Delete(args) => control::delete(&root, &args, report),
        Verb::Exec(args) => exec::exec(&root, args, report),
        Verb::List(args) => list::list(&root, &args),
        Verb::Ps(args) => list::ps(&root, &args),
        Verb::Pause(args) => control::pause(&root, &args),
        Verb::Resume(args) => control::resume(&root, &args),
        Verb::Update(args) => update::update(&root, &args),
        Verb::Events(args) => events::events(&root, &args),
        Verb::Spec(args) => spec::spec(&args),
        Verb::Features => features::features(),
    }
}

fn load(root: &StateRoot, id: &str) -> Result<Container, Failure> {
    Ok(Container::load(root, &ContainerId::new(id)?)?)
}

/// Data on stdout. A reader that has gone away is no error of ours.
fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
