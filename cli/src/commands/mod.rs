//! One file a verb: its flags, then one call.

pub mod attach;
pub mod container_prune;
pub mod cp;
pub mod create;
pub mod df;
pub mod events;
pub mod exec;
pub mod export;
pub mod history;
pub mod image_prune;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod kernel;
pub mod kill;
pub mod load;
pub mod login;
pub mod logout;
pub mod logs;
pub mod network;
pub mod pause;
pub mod port;
pub mod ps;
pub mod pull;
pub mod push;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod start;
pub mod stats;
pub mod stop;
pub mod system_prune;
pub mod tag;
pub mod top;
pub mod unpause;
pub mod update;
pub mod version;
pub mod volume;
pub mod wait;

use std::io::{self, BufRead, IsTerminal, Read};

use berth_engine::volumes::disk_usage;
use berth_engine::{ContainerConfig, ContainerId, Ended, ListOptions};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::printer;

/// Does something to each object named and prints its name; an error is told and the others go on.
pub fn each(names: &[String], act: impl Fn(&str) -> Result<()>) -> Result<Exit> {
    each_silently(names, |name| {
        act(name)?;
        printer::line(&printer::harmless(name))
    })
}

/// As [`each`], without the name.
pub fn each_silently(names: &[String], act: impl Fn(&str) -> Result<()>) -> Result<Exit> {
    let mut exit = Exit::Success;
    for name in names {
        if let Err(failure) = act(name) {
            exit = failure.report();
        }
    }
    Ok(exit)
}

/// The exit of a container as berth's own.
pub fn container_code(code: i32) -> Exit {
    if code == 0 {
        Exit::Success
    } else {
        Exit::Code(u8::try_from(code & 0xff).unwrap_or(1))
    }
}

/// What a container takes on disk, in bytes.
pub struct Size {
    /// Written by it.
    pub written: u64,
    /// Its image, which others share; 0 once that is gone.
    pub image: u64,
}

impl Size {
    /// Looks at every file the container wrote.
    pub fn of(id: &ContainerId, config: &ContainerConfig, context: &Context) -> Result<Self> {
        Ok(Self {
            written: disk_usage(&context.engine()?.paths().upper(id)),
            image: context
                .images()?
                .resolve(&config.image.id)
                .map_or(0, |image| image.size),
        })
    }
}

/// Refuses `-it` where there is no terminal to join, before anything is made.
pub fn needs_terminal(stdin: bool, tty: bool) -> Result<()> {
    if stdin && tty && !io::stdin().is_terminal() {
        return Err(
            Failure::new("cannot join the container's terminal: standard input is no terminal")
                .with_hint("leave -t out to pipe input, or -i to give none"),
        );
    }
    Ok(())
}

/// How a session's end is told to the shell. After detaching it is a success.
pub fn ended(ended: Ended) -> Exit {
    match ended {
        Ended::Exited(code) => container_code(code),
        Ended::Detached => Exit::Success,
    }
}

/// A failed start or exec: 126 and 127 when it is the command's fault, 125 otherwise.
pub fn run_failure(error: berth_engine::Error) -> Failure {
    let code = error.exit_code();
    Failure::from(error).with_exit(Exit::Code(code))
}

/// Which images containers use, for removal. When that cannot be told, all of them do: nothing may go.
pub fn uses(context: &Context) -> Vec<berth_images::gc::Use> {
    used_by_containers(context).unwrap_or_else(|failure| {
        let container = format!("unknown: {failure}");
        let images = context
            .images()
            .and_then(|images| Ok(images.list()?))
            .unwrap_or_default();
        let all = images.into_iter();
        all.map(|image| berth_images::gc::Use {
            image: image.id,
            container: container.clone(),
            is_running: true,
        })
        .collect()
    })
}

fn used_by_containers(context: &Context) -> Result<Vec<berth_images::gc::Use>> {
    let containers = context.engine()?.list(&ListOptions {
        all: true,
        ..ListOptions::default()
    })?;
    containers
        .into_iter()
        .map(|summary| {
            let id = &summary.config.image.id;
            Ok(berth_images::gc::Use {
                image: id
                    .parse()
                    .map_err(|e| Failure::new(format!("image id {id}: {e}")))?,
                container: summary.name.to_string(),
                is_running: summary.state.status.needs_shim(),
            })
        })
        .collect()
}

/// What a prune removed, under docker's heading; nothing when there was nothing.
pub fn deleted(kind: &str, names: impl Iterator<Item = String>) -> Result<()> {
    let mut names = names.peekable();
    if names.peek().is_none() {
        return Ok(());
    }
    printer::line(&format!("Deleted {kind}:"))?;
    for name in names {
        printer::line(&printer::harmless(&name))?;
    }
    printer::line("")
}

/// Asks a person, or who answers through a pipe, as docker does (`yes | docker system prune`).
pub fn confirmed(what: &str) -> Result<bool> {
    const ANSWER_BYTES_MAX: u64 = 1024;
    printer::warning(what);
    printer::prompt("Are you sure you want to continue? [y/N] ");
    let mut line = String::new();
    let read = io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut line)?;
    if !io::stdin().is_terminal() {
        // Where no key ends the line of the question.
        printer::prompt("\n");
        if read == 0 {
            return Err(Failure::new("nobody answers: standard input is empty").with_hint("use --force"));
        }
    }
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
