//! `berth login`.

use berth_images::registry;
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
            asked_of_somebody()?;
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
            asked_of_somebody()?;
            printer::prompt("Password: ");
            without_echo(first_line)?
        }
    };
    let refused = |e: berth_images::Error| {
        // No credentials were configured here: those just given are wrong.
        let is_refused = matches!(
            &e,
            berth_images::Error::Registry {
                source: registry::Error::CredentialsRefused(_),
                ..
            }
        );
        if is_refused {
            let why = format!("log in to {}: user name or password is wrong", args.registry);
            Failure::new(why).with_hint("registries with two-factor login want an access token as password")
        } else {
            e.into()
        }
    };
    context
        .registries()?
        .login(&args.registry, &user, &password)
        .map_err(refused)?;
    printer::line("Login Succeeded")?;
    Ok(Exit::Success)
}

/// Questions are for terminals: in a script they would wait, or take the next line of something else for a password.
fn asked_of_somebody() -> Result<()> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::new("nobody to ask: standard input is no terminal")
        .with_hint("use --username and --password-stdin"))
}

fn first_line() -> Result<String> {
    let mut line = String::new();
    io::stdin().lock().take(1 << 16).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Runs `read` while the terminal shows nothing.
fn without_echo(read: impl FnOnce() -> Result<String>) -> Result<String> {
    let input = io::stdin();
    let before = tcgetattr(&input)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &silent)?;
    let line = read();
    tcsetattr(&input, OptionalActions::Flush, &before)?;
    printer::prompt("\n");
    line
}
