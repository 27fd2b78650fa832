//! The walk from argv to one verb of the table.
//!
//! Only the verb asked for has its flags built: the whole tree costs more than starting a container's first process.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::printer::{self, Level};
use crate::switch;
use crate::verbs::{GROUPS, VERBS, Verb};

/// The global flags. Their order here is the order in help.
fn root() -> Command {
    Command::new("berth")
        .about("Runs OCI images on Linux")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
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
        .arg(
            Arg::new("version")
                .short('v')
                .short_alias('V')
                .long("version")
                .action(clap::ArgAction::Version)
                .help("Print version"),
        )
}

/// Where in argv the words stand that name the verb: global flags and their values skipped.
fn places(args: &[OsString]) -> [Option<usize>; 2] {
    let mut words = args.iter().enumerate().skip(1);
    let mut found = [None, None];
    let mut count = 0;
    while let Some((place, word)) = words.next() {
        match word.to_str().unwrap_or_default() {
            "--root" | "--state" | "--config" | "--log-level" | "-l" if count == 0 => {
                words.next();
            }
            word if word.starts_with('-') => {}
            _ => {
                found[count] = Some(place);
                count += 1;
                if count == 2 {
                    break;
                }
            }
        }
    }
    found
}

/// The words that name the verb.
fn wanted(args: &[OsString]) -> (Option<&str>, Option<&str>) {
    let [first, second] = places(args).map(|place| place.and_then(|place| args[place].to_str()));
    (first, second)
}

/// What the tree is made for. Help says nothing of the values that switches take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Parsing,
    Help,
}

/// The tree with the flags of the verb asked for, and of no other.
fn tree(args: &[OsString], purpose: For) -> Command {
    let (first, second) = wanted(args);
    let command = |verb: &Verb, name: Option<&str>| {
        let asked = name.is_some_and(|name| verb.answers(name));
        let command = verb.command(asked);
        if asked && purpose == For::Parsing {
            switch::take_values(command)
        } else {
            command
        }
    };
    let verbs = VERBS.iter().map(|verb| command(verb, first));
    let groups = GROUPS.iter().map(|group| {
        let asked = first == Some(group.name);
        let verbs = group.verbs.iter().filter(|_| asked);
        Command::new(group.name)
            .about(group.about)
            .subcommand_required(true)
            .subcommands(verbs.map(|verb| command(verb, second)))
    });
    root().subcommands(verbs).subcommands(groups)
}

/// `berth help VERB` is `berth VERB --help`.
fn help_asked(args: &[OsString]) -> Option<Vec<OsString>> {
    let place = places(args)[0].filter(|place| args[*place] == "help")?;
    let mut args = args.to_vec();
    args.remove(place);
    args.push("--help".into());
    Some(args)
}

/// Parses and runs.
pub fn run(args: &[OsString]) -> Result<Exit> {
    let asked = help_asked(args);
    let args = asked.as_deref().unwrap_or(args);
    let mut matches = match tree(args, For::Parsing).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::MissingSubcommand => {
                let help = [args, &["--help".into()]].concat();
                let help = tree(args, For::Help).try_get_matches_from(help);
                let help = help.expect_err("help is asked for");
                printer::raw(help.to_string().as_bytes())?;
                return Ok(Exit::Success);
            }
            ErrorKind::DisplayVersion => {
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
    let config_is_asked_for = matches.value_source("config") == Some(ValueSource::CommandLine);
    let mut path = |name| matches.remove_one::<PathBuf>(name).unwrap_or_default();
    let context = Context {
        root: path("root"),
        state: path("state"),
        config: path("config"),
        config_is_asked_for,
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
            switch::take_values(verb.command(true)).debug_assert();
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

    #[track_caller]
    fn parsed(words: &[&str]) -> c::run::Run {
        let args = os(words);
        let matches = tree(&args, For::Parsing).try_get_matches_from(&args);
        let mut matches = matches.unwrap_or_else(|e| panic!("{words:?}: {e}"));
        let (_, mut matches) = matches.remove_subcommand().unwrap();
        c::run::Run::from_arg_matches_mut(&mut matches).unwrap()
    }

    #[test]
    fn flags_behind_the_image_are_the_commands() {
        let run = parsed(&[
            "berth", "run", "-it", "--rm", "-e", "A=1", "busybox", "sh", "-c", "-x", "--", "y",
        ]);
        assert_eq!(run.container.words, ["busybox", "sh", "-c", "-x", "--", "y"]);
        assert!(run.container.tty && run.container.interactive && run.rm);
        for first in ["-v", "--help", "--rm", "--name=x", "--", "-it"] {
            let run = parsed(&["berth", "run", "-e", "A=1", "busybox", first, "y"]);
            assert_eq!(run.container.words, ["busybox", first, "y"]);
            assert!(!run.container.tty && !run.rm);
        }
    }

    #[test]
    fn a_flag_given_twice_counts_as_it_stands_last() {
        let run = parsed(&[
            "berth",
            "run",
            "--rm",
            "-w",
            "/a",
            "-w",
            "/b",
            "--rm=false",
            "busybox",
        ]);
        assert!(!run.rm);
    }

    #[test]
    fn help_is_a_verb_too() {
        let asked = |words: &[&str]| help_asked(&os(words));
        assert_eq!(
            asked(&["berth", "help", "image", "ls"]),
            Some(os(&["berth", "image", "ls", "--help"]))
        );
        assert_eq!(
            asked(&["berth", "--root", "help", "help"]),
            Some(os(&["berth", "--root", "help", "--help"]))
        );
        assert_eq!(asked(&["berth", "run", "busybox", "help"]), None);
    }
}
