//! `berth exec`.

use berth_engine::{ExecRequest, attach::DetachKeys, flags::UserSpec};
use clap::Args;
use std::path::PathBuf;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
pub struct Exec {
    /// Return once it runs
    #[arg(short, long)]
    detach: bool,
    /// Keys that detach
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give all capabilities
    #[arg(long)]
    privileged: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<UserSpec>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// Container, then the command and its arguments
    // One argument: what follows the container is the command's, also what looks like a flag of ours.
    #[arg(value_names = ["CONTAINER", "COMMAND"], required = true, num_args = 2.., trailing_var_arg = true)]
    words: Vec<String>,
}

pub fn run(args: Exec, context: &Context) -> Result<Exit> {
    // This process clones into the container, where its file can be seen (CVE-2019-5736). Other verbs leave that to the shim
    // and need no second exec. First of all: what is open or running here does not survive it.
    berth_sys::reexec::seal().map_err(|e| {
        Failure::new(format!("cannot run from a file no container can write: {e}")).with_exit(Exit::Berth)
    })?;
    if !args.detach {
        super::needs_terminal(args.interactive, args.tty)?;
    }
    let engine = context.engine()?;
    let mut words = args.words.into_iter();
    let id = engine.find(&words.next().expect("clap requires the container"))?;
    let request = ExecRequest {
        command: words.collect(),
        tty: args.tty,
        interactive: args.interactive,
        detach: args.detach,
        env: crate::environment::gather(&args.env_file, &args.env)?,
        working_dir: args.workdir,
        user: args.user,
        privileged: args.privileged,
        detach_keys: args.detach_keys,
    };
    let code = engine.exec(&id, &request).map_err(|error| match error {
        // docker's exec is a failed request then, not a failed run.
        berth_engine::Error::Wrong { .. } => error.into(),
        error => super::run_failure(error),
    })?;
    Ok(super::container_code(code))
}
