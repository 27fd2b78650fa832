//! The walk from argv to one verb of the table.
//!
//! Only the verb asked for has its flags built: the whole tree costs more than starting a container's first process.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::printer::{self, Level};
use crate::verbs::{GROUPS, VERBS, Verb};

/// The global flags. Their order here is the order in help.
fn root() -> Command {
    Command::new("berth")
        .about("Runs OCI images on Linux")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("root")
                .long("root")
                .value_name("DIR")
                .env("BERTH_ROOT")
                .default_value("/var/lib/berth")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where images, containers and volumes are kept"),
        )
        .arg(
            Arg::new("state")
                .long("state")
                .value_name("DIR")
                .env("BERTH_STATE")
                .default_value("/run/berth")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where what is lost at reboot is kept"),
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .default_value("/etc/berth/config.json")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Registries: insecure ones and mirrors"),
        )
        .arg(
            Arg::new("log-level")
                .short('l')
                .long("log-level")
                .value_name("LEVEL")
                .default_value("info")
                .value_parser(clap::value_parser!(Level))
                .help("What is told beside errors: debug, info, warn (warnings), error, fatal (nothing)"),
        )
}

/// The words of argv that name the verb: global flags and their values skipped.
fn wanted(args: &[OsString]) -> (Option<&str>, Option<&str>) {
    let mut words = args.iter().skip(1).map(|word| word.to_str().unwrap_or_default());
    let mut found = [None, None];
    let mut place = 0;
    while let Some(word) = words.next() {
        match word {
            "--root" | "--state" | "--config" | "--log-level" | "-l" if place == 0 => {
                words.next();
            }
            _ if word.starts_with('-') => {}
            _ => {
                found[place] = Some(word);
                place += 1;
                if place == 2 {
                    break;
                }
            }
        }
    }
    (found[0], found[1])
}

/// The tree with the flags of the verb asked for, and of no other.
fn tree(args: &[OsString]) -> Command {
    let (first, second) = wanted(args);
    let verbs = VERBS
        .iter()
        .map(|verb| verb.command(first.is_some_and(|name| verb.answers(name))));
    let groups = GROUPS.iter().map(|group| {
        let asked = first == Some(group.name);
        let command = Command::new(group.name)
            .about(group.about)
            .subcommand_required(true);
        let verbs = group.verbs.iter().filter(|_| asked);
        command.subcommands(verbs.map(|verb| verb.command(second.is_some_and(|name| verb.answers(name)))))
    });
    root().subcommands(verbs).subcommands(groups)
}

/// Parses and runs.
pub fn run(args: &[OsString]) -> Result<Exit> {
    let mut matches = match tree(args).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                printer::raw(error.to_string().as_bytes())?;
                return Ok(Exit::Success);
            }
            _ => {
                let text = error.to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                return Err(Failure::new(text.trim_end()).with_exit(Exit::Berth));
            }
        },
    };
    if let Some(level) = matches.remove_one::<Level>("log-level") {
        level.take_effect();
    }
    let mut path = |name| matches.remove_one::<PathBuf>(name).unwrap_or_default();
    let context = Context {
        root: path("root"),
        state: path("state"),
        config: path("config"),
    };
    let (name, mut verb_matches) = matches.remove_subcommand().expect("clap requires a verb");
    if let Some(group) = GROUPS.iter().find(|group| group.name == name) {
        let (name, mut verb_matches) = verb_matches.remove_subcommand().expect("clap requires a verb");
        return call(group.verbs, &name, &mut verb_matches, &context);
    }
    call(VERBS, &name, &mut verb_matches, &context)
}

fn call(verbs: &[Verb], name: &str, matches: &mut ArgMatches, context: &Context) -> Result<Exit> {
    let verb = verbs
        .iter()
        .find(|verb| verb.name == name)
        .expect("the tree is made of this table");
    (verb.call)(matches, context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands as c;
    use clap::FromArgMatches as _;

    fn os(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn every_verb_has_a_sound_tree() {
        for verb in VERBS.iter().chain(GROUPS.iter().flat_map(|group| group.verbs)) {
            verb.command(true).debug_assert();
        }
    }

    #[test]
    fn global_flags_do_not_hide_the_verb() {
        assert_eq!(
            wanted(&os(&[
                "berth",
                "--root",
                "/x",
                "-l",
                "debug",
                "--state=/y",
                "container",
                "ls"
            ])),
            (Some("container"), Some("ls"))
        );
        assert_eq!(wanted(&os(&["berth", "run", "--name", "x"])).0, Some("run"));
    }

    #[test]
    fn flags_behind_the_image_are_the_commands() {
        let args = os(&[
            "berth", "run", "-it", "--rm", "-e", "A=1", "busybox", "sh", "-c", "-x", "--", "y",
        ]);
        let mut matches = tree(&args).try_get_matches_from(&args).unwrap();
        let (_, mut matches) = matches.remove_subcommand().unwrap();
        let run = c::run::Run::from_arg_matches_mut(&mut matches).unwrap();
        assert_eq!(run.container.command, ["sh", "-c", "-x", "--", "y"]);
        assert!(run.container.tty && run.container.interactive && run.rm);
    }
}
