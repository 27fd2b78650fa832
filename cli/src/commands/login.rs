//! `berth login`.

use clap::Args;
use std::io::{self, BufRead, IsTerminal, Read};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Login {
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password; others on this host can see it
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Registry
    #[arg(default_value = "docker.io")]
    registry: String,
}

pub fn run(args: Login, context: &Context) -> Result<Exit> {
    let user = match args.username {
        Some(user) => user,
        None if args.password_stdin => return Err(Failure::new("--password-stdin needs --username")),
        None => {
            printer::prompt("Username: ");
            first_line()?
        }
    };
    let password = match args.password {
        Some(password) => {
            printer::warning("a password on the command line is seen by others; use --password-stdin");
            password
        }
        None if args.password_stdin => {
            let mut text = String::new();
            io::stdin().lock().take(1 << 16).read_to_string(&mut text)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => {
            printer::prompt("Password: ");
            without_echo(first_line)?
        }
    };
    context.registries()?.login(&args.registry, &user, &password)?;
    printer::line("Login Succeeded")?;
    Ok(Exit::Success)
}

fn first_line() -> Result<String> {
    let mut line = String::new();
    io::stdin().lock().take(1 << 16).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Runs `read` while the terminal shows nothing.
fn without_echo(read: impl FnOnce() -> Result<String>) -> Result<String> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read();
    }
    let before = tcgetattr(&input)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &silent)?;
    let line = read();
    tcsetattr(&input, OptionalActions::Flush, &before)?;
    printer::prompt("\n");
    line
}
