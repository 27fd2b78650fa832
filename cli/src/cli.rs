//! The tree of verbs as a table, and the walk from argv to one of them.
//!
//! Only the verb asked for has its flags built: the whole tree costs more than starting a container's first process.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::commands as c;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::printer;

/// One verb.
struct Verb {
    name: &'static str,
    about: &'static str,
    aliases: &'static [&'static str],
    flags: fn(Command) -> Command,
    call: fn(&mut ArgMatches, &Context) -> Result<Exit>,
}

/// Verbs on one kind of object: `berth container ls`.
struct Group {
    name: &'static str,
    about: &'static str,
    verbs: &'static [Verb],
}

macro_rules! verb {
    ($name:literal $(| $alias:literal)*, $about:literal, $args:ty, $run:path) => {
        Verb {
            name: $name,
            about: $about,
            aliases: &[$($alias),*],
            flags: <$args as Args>::augment_args,
            call: |matches, context| $run(<$args as FromArgMatches>::from_arg_matches_mut(matches)?, context),
        }
    };
}

static VERBS: &[Verb] = &[
    verb!(
        "run",
        "Create and run a new container from an image",
        c::run::Run,
        c::run::run
    ),
    verb!(
        "exec",
        "Run a command in a running container",
        c::exec::Exec,
        c::exec::run
    ),
    verb!("ps", "List containers", c::ps::Ps, c::ps::run),
    verb!(
        "pull",
        "Download an image from a registry",
        c::pull::Pull,
        c::pull::run
    ),
    verb!(
        "push",
        "Upload an image to a registry",
        c::push::Push,
        c::push::run
    ),
    verb!("images", "List images", c::images::List, c::images::run),
    verb!("login", "Log in to a registry", c::login::Login, c::login::run),
    verb!(
        "logout",
        "Log out from a registry",
        c::logout::Logout,
        c::logout::run
    ),
    verb!(
        "version",
        "Show version information",
        c::version::Version,
        c::version::run
    ),
    verb!(
        "info",
        "Display system-wide information",
        c::info::Info,
        c::info::run
    ),
    verb!(
        "attach",
        "Attach to a running container",
        c::attach::Attach,
        c::attach::run
    ),
    verb!(
        "cp",
        "Copy files between a container and the host",
        c::cp::Copy,
        c::cp::run
    ),
    verb!(
        "create",
        "Create a new container",
        c::create::Create,
        c::create::run
    ),
    verb!(
        "events",
        "Get real time events",
        c::events::Stream,
        c::events::run
    ),
    verb!(
        "export",
        "Export a container's filesystem as a tar archive",
        c::export::Export,
        c::export::run
    ),
    verb!(
        "history",
        "Show the history of an image",
        c::history::History,
        c::history::run
    ),
    verb!(
        "import",
        "Make an image from a tarball",
        c::import::Import,
        c::import::run
    ),
    verb!(
        "inspect",
        "Return low-level information on objects",
        c::inspect::Inspect,
        c::inspect::run
    ),
    verb!("kill", "Kill running containers", c::kill::Kill, c::kill::run),
    verb!(
        "load",
        "Load images from a tar archive or layout",
        c::load::Load,
        c::load::run
    ),
    verb!(
        "logs",
        "Fetch the logs of a container",
        c::logs::Logs,
        c::logs::run
    ),
    verb!(
        "pause",
        "Freeze all processes of containers",
        c::pause::Pause,
        c::pause::run
    ),
    verb!(
        "port",
        "List port mappings of a container",
        c::port::Port,
        c::port::run
    ),
    verb!("rename", "Rename a container", c::rename::Rename, c::rename::run),
    verb!(
        "restart",
        "Restart containers",
        c::restart::Restart,
        c::restart::run
    ),
    verb!("rm", "Remove containers", c::rm::Remove, c::rm::run),
    verb!("rmi", "Remove images", c::rmi::Remove, c::rmi::run),
    verb!(
        "save",
        "Save images to a tar archive or layout",
        c::save::Save,
        c::save::run
    ),
    verb!(
        "start",
        "Start stopped containers",
        c::start::Start,
        c::start::run
    ),
    verb!(
        "stats",
        "Show resource usage of containers",
        c::stats::Stats,
        c::stats::run
    ),
    verb!("stop", "Stop running containers", c::stop::Stop, c::stop::run),
    verb!("tag", "Give an image another name", c::tag::Tag, c::tag::run),
    verb!(
        "top",
        "Show the processes of a container",
        c::top::Top,
        c::top::run
    ),
    verb!(
        "unpause",
        "Thaw all processes of containers",
        c::unpause::Unpause,
        c::unpause::run
    ),
    verb!(
        "update",
        "Change limits of containers",
        c::update::Update,
        c::update::run
    ),
    verb!(
        "wait",
        "Wait until containers end, print their exit codes",
        c::wait::Wait,
        c::wait::run
    ),
];

static GROUPS: &[Group] = &[
    Group {
        name: "container",
        about: "Manage containers",
        verbs: &[
            verb!(
                "run",
                "Create and run a new container from an image",
                c::run::Run,
                c::run::run
            ),
            verb!(
                "exec",
                "Run a command in a running container",
                c::exec::Exec,
                c::exec::run
            ),
            verb!("ls" | "list" | "ps", "List containers", c::ps::Ps, c::ps::run),
            verb!(
                "attach",
                "Attach to a running container",
                c::attach::Attach,
                c::attach::run
            ),
            verb!(
                "cp",
                "Copy files between a container and the host",
                c::cp::Copy,
                c::cp::run
            ),
            verb!(
                "create",
                "Create a new container",
                c::create::Create,
                c::create::run
            ),
            verb!(
                "export",
                "Export a container's filesystem",
                c::export::Export,
                c::export::run
            ),
            verb!(
                "inspect",
                "Show containers in full",
                c::inspect::Containers,
                c::inspect::containers
            ),
            verb!("kill", "Kill running containers", c::kill::Kill, c::kill::run),
            verb!(
                "logs",
                "Fetch the logs of a container",
                c::logs::Logs,
                c::logs::run
            ),
            verb!(
                "pause",
                "Freeze all processes of containers",
                c::pause::Pause,
                c::pause::run
            ),
            verb!(
                "port",
                "List port mappings of a container",
                c::port::Port,
                c::port::run
            ),
            verb!(
                "prune",
                "Remove all stopped containers",
                c::container_prune::Prune,
                c::container_prune::run
            ),
            verb!("rename", "Rename a container", c::rename::Rename, c::rename::run),
            verb!(
                "restart",
                "Restart containers",
                c::restart::Restart,
                c::restart::run
            ),
            verb!("rm" | "remove", "Remove containers", c::rm::Remove, c::rm::run),
            verb!(
                "start",
                "Start stopped containers",
                c::start::Start,
                c::start::run
            ),
            verb!(
                "stats",
                "Show resource usage of containers",
                c::stats::Stats,
                c::stats::run
            ),
            verb!("stop", "Stop running containers", c::stop::Stop, c::stop::run),
            verb!(
                "top",
                "Show the processes of a container",
                c::top::Top,
                c::top::run
            ),
            verb!(
                "unpause",
                "Thaw all processes of containers",
                c::unpause::Unpause,
                c::unpause::run
            ),
            verb!(
                "update",
                "Change limits of containers",
                c::update::Update,
                c::update::run
            ),
            verb!("wait", "Wait until containers end", c::wait::Wait, c::wait::run),
        ],
    },
    Group {
        name: "image",
        about: "Manage images",
        verbs: &[
            verb!("ls" | "list", "List images", c::images::List, c::images::run),
            verb!(
                "history",
                "Show the history of an image",
                c::history::History,
                c::history::run
            ),
            verb!(
                "import",
                "Make an image from a tarball",
                c::import::Import,
                c::import::run
            ),
            verb!(
                "inspect",
                "Show images in full",
                c::inspect::Images,
                c::inspect::images
            ),
            verb!(
                "load",
                "Load images from a tar archive or layout",
                c::load::Load,
                c::load::run
            ),
            verb!(
                "prune",
                "Remove unused images",
                c::image_prune::Prune,
                c::image_prune::run
            ),
            verb!(
                "pull",
                "Download an image from a registry",
                c::pull::Pull,
                c::pull::run
            ),
            verb!(
                "push",
                "Upload an image to a registry",
                c::push::Push,
                c::push::run
            ),
            verb!("rm" | "remove", "Remove images", c::rmi::Remove, c::rmi::run),
            verb!(
                "save",
                "Save images to a tar archive or layout",
                c::save::Save,
                c::save::run
            ),
            verb!("tag", "Give an image another name", c::tag::Tag, c::tag::run),
        ],
    },
    Group {
        name: "volume",
        about: "Manage volumes",
        verbs: &[
            verb!("create", "Create a volume", c::volume::Create, c::volume::create),
            verb!(
                "inspect",
                "Show volumes in full",
                c::volume::Inspect,
                c::volume::inspect
            ),
            verb!("ls" | "list", "List volumes", c::volume::List, c::volume::list),
            verb!(
                "prune",
                "Remove unused volumes",
                c::volume::Prune,
                c::volume::prune
            ),
            verb!(
                "rm" | "remove",
                "Remove volumes",
                c::volume::Remove,
                c::volume::remove
            ),
        ],
    },
    Group {
        name: "network",
        about: "Manage networks",
        verbs: &[
            verb!(
                "connect",
                "Connect a container to a network",
                c::network::Connect,
                c::network::connect
            ),
            verb!(
                "create",
                "Create a network",
                c::network::Create,
                c::network::create
            ),
            verb!(
                "disconnect",
                "Disconnect a container",
                c::network::Disconnect,
                c::network::disconnect
            ),
            verb!(
                "inspect",
                "Show networks in full",
                c::network::Inspect,
                c::network::inspect
            ),
            verb!("ls" | "list", "List networks", c::network::List, c::network::list),
            verb!(
                "prune",
                "Remove unused networks",
                c::network::Prune,
                c::network::prune
            ),
            verb!(
                "rm" | "remove",
                "Remove networks",
                c::network::Remove,
                c::network::remove
            ),
        ],
    },
    Group {
        name: "system",
        about: "Manage berth",
        verbs: &[
            verb!("df", "Show disk usage", c::df::Usage, c::df::run),
            verb!(
                "events",
                "Get real time events",
                c::events::Stream,
                c::events::run
            ),
            verb!(
                "info",
                "Display system-wide information",
                c::info::Info,
                c::info::run
            ),
            verb!(
                "prune",
                "Remove unused data",
                c::system_prune::Prune,
                c::system_prune::run
            ),
        ],
    },
];

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
}

/// The words of argv that name the verb: global flags and their values skipped.
fn wanted(args: &[OsString]) -> (Option<&str>, Option<&str>) {
    let mut words = args.iter().skip(1).map(|word| word.to_str().unwrap_or_default());
    let mut found = [None, None];
    let mut place = 0;
    while let Some(word) = words.next() {
        match word {
            "--root" | "--state" | "--config" if place == 0 => {
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

impl Verb {
    fn answers(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    fn command(&self, full: bool) -> Command {
        let command = Command::new(self.name)
            .about(self.about)
            .aliases(self.aliases.iter().copied());
        if full {
            // -h is docker's --hostname; help is --help alone.
            let help = Arg::new("help")
                .long("help")
                .action(clap::ArgAction::Help)
                .help("Print help");
            (self.flags)(command.disable_help_flag(true).arg(help))
        } else {
            command
        }
    }
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
            wanted(&os(&["berth", "--root", "/x", "--state=/y", "container", "ls"])),
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
