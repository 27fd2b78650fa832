//! `create` and `run`.

use std::path::PathBuf;
use std::process::ExitCode;

use berth_runtime::bundle::Bundle;
use berth_runtime::{Console, Container, ContainerId, CreateOptions, StateRoot, Stdio};
use clap::Args;

use super::foreground::{Foreground, preserved};
use super::{Failure, Outcome};
use crate::report::Report;

#[derive(Args)]
pub struct CreateArgs {
    /// Name for the container
    pub id: String,
    /// Directory with config.json
    #[arg(long, short, default_value = ".")]
    pub bundle: PathBuf,
    /// Unix socket that receives the terminal's master
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File to write init's pid to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivoting, for a rootfs on a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass this many descriptors from 3 on
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
}

#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub create: CreateArgs,
    /// Return once the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// Do not delete the container when it ends
    #[arg(long)]
    pub keep: bool,
    /// Taken for runc's sake: berth-runtime is never a subreaper
    #[arg(long)]
    pub no_subreaper: bool,
}

fn options(args: CreateArgs, terminal_here: bool) -> Result<CreateOptions, Failure> {
    let console = match args.console_socket {
        Some(path) => Console::Socket(path),
        None if terminal_here => Console::Receive,
        None => Console::None,
    };
    Ok(CreateOptions {
        stdio: Stdio::Inherit,
        console,
        pid_file: args.pid_file,
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        preserve_fds: preserved(args.preserve_fds)?,
        seccomp_cache: None,
        start_at_once: false,
        patience: None,
    })
}

pub fn create(root: &StateRoot, args: CreateArgs, report: &Report) -> Outcome {
    let id = ContainerId::new(args.id.as_str())?;
    let bundle = args.bundle.clone();
    let options = CreateOptions {
        seccomp_cache: Some(cache(root)),
        ..options(args, false)?
    };
    let created = Container::create(root, &id, &bundle, options)?;
    report.warn(&created.warnings);
    Ok(ExitCode::SUCCESS)
}

pub fn run(root: &StateRoot, args: RunArgs, report: &Report) -> Outcome {
    let id = ContainerId::new(args.create.id.as_str())?;
    let bundle = args.create.bundle.clone();
    let here = !args.detach && args.create.console_socket.is_none() && {
        let spec = Bundle::open(&bundle)?.spec;
        spec.process()
            .as_ref()
            .and_then(|p| p.terminal())
            .unwrap_or(false)
    };
    let foreground = if args.detach {
        None
    } else {
        Some(Foreground::prepare()?)
    };
    let options = CreateOptions {
        seccomp_cache: Some(cache(root)),
        start_at_once: true,
        ..options(args.create, here)?
    };
    let mut created = Container::create(root, &id, &bundle, options)?;
    report.warn(&created.warnings);
    if let Err(error) = created.container.start() {
        let _ = created.container.delete(true);
        return Err(error.into());
    }
    let Some(foreground) = foreground else {
        return Ok(ExitCode::SUCCESS);
    };
    let code = foreground.wait(created.init, created.console);
    if !args.keep {
        report.warn(&created.container.delete(true)?);
    }
    code
}

/// Compiled filters live beside the states: same owner, gone at reboot. No container id begins with a colon.
pub fn cache(root: &StateRoot) -> PathBuf {
    root.path().join(":seccomp")
}
