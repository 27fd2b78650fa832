//! `berth run`.

use berth_engine::{AttachOptions, Engine, RemoveOptions, StartOptions, attach::DetachKeys};
use clap::Args;

use super::create;
use crate::container_args::ContainerArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
#[command(override_usage = "berth run [OPTIONS] <IMAGE> [COMMAND]...")]
pub struct Run {
    /// Run in the background and print the id
    #[arg(short, long, conflicts_with = "attach")]
    detach: bool,
    /// Remove the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// Streams to attach to: stdin, stdout, stderr
    #[arg(short, long, value_parser = ["stdin", "stdout", "stderr", "STDIN", "STDOUT", "STDERR"])]
    attach: Vec<String>,
    /// Keys that detach
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Pass signals on to the container: on unless --sig-proxy=false
    #[arg(long, default_value_t = true)]
    sig_proxy: bool,
    #[command(flatten)]
    pub container: ContainerArgs,
}

pub fn run(args: Run, context: &Context) -> Result<Exit> {
    let wants = |stream: &str| {
        args.attach.is_empty() || args.attach.iter().any(|word| word.eq_ignore_ascii_case(stream))
    };
    let attach = AttachOptions {
        stdin: args.container.interactive && wants("stdin"),
        stdout: wants("stdout"),
        stderr: wants("stderr"),
        detach_keys: args.detach_keys.clone(),
        sig_proxy: args.sig_proxy,
    };
    if !args.detach {
        super::needs_terminal(attach.stdin, args.container.tty)?;
    }
    let berth = |failure: Failure| failure.with_exit(Exit::Berth);
    let created = create::make(
        args.container,
        args.rm,
        args.detach,
        context,
        Engine::create_to_start,
    )
    .map_err(berth)?;
    let engine = context.engine().map_err(berth)?;
    let options = StartOptions {
        attach: (!args.detach).then_some(attach),
        is_new: true,
    };
    match engine.start(&created.id, &options) {
        Ok(None) => {
            printer::line(created.id.as_str())?;
            Ok(Exit::Success)
        }
        Ok(Some(session)) => Ok(super::ended(session.run().map_err(|e| berth(e.into()))?)),
        Err(error) => {
            if args.rm {
                // The start's error is what the user needs; a container that is gone already is fine.
                let _ = engine.remove(
                    &created.id,
                    RemoveOptions {
                        force: true,
                        volumes: true,
                    },
                );
            }
            Err(super::run_failure(error))
        }
    }
}
