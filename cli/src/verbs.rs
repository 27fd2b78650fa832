//! The table of verbs: names, one sentence each, their flags, and what they call.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::commands as c;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;

/// One verb.
pub struct Verb {
    pub name: &'static str,
    about: &'static str,
    aliases: &'static [&'static str],
    flags: fn(Command) -> Command,
    pub call: fn(&mut ArgMatches, &Context) -> Result<Exit>,
}

/// Verbs on one kind of object: `berth container ls`.
pub struct Group {
    pub name: &'static str,
    pub about: &'static str,
    pub verbs: &'static [Verb],
}

impl Verb {
    pub fn answers(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    pub fn command(&self, full: bool) -> Command {
        let mut command = Command::new(self.name).aliases(self.aliases.iter().copied());
        if full {
            // -h is docker's --hostname; help is --help alone.
            let help = Arg::new("help")
                .long("help")
                .action(clap::ArgAction::Help)
                .help("Print help");
            command = (self.flags)(command.disable_help_flag(true).arg(help)).args_override_self(true);
        }
        // Last: the doc comment of a group of flags would stand there instead.
        command.about(self.about)
    }
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

// Verbs that stand at the top level and in a group.
const RUN: Verb = verb!(
    "run",
    "Create and run a new container from an image",
    c::run::Run,
    c::run::run
);
const EXEC: Verb = verb!(
    "exec",
    "Run a command in a running container",
    c::exec::Exec,
    c::exec::run
);
const PULL: Verb = verb!(
    "pull",
    "Download an image from a registry",
    c::pull::Pull,
    c::pull::run
);
const PUSH: Verb = verb!(
    "push",
    "Upload an image to a registry",
    c::push::Push,
    c::push::run
);
const DF: Verb = verb!("df", "Show disk usage", c::df::Usage, c::df::run);
const SYSTEM_PRUNE: Verb = verb!(
    "prune",
    "Remove unused data",
    c::system_prune::Prune,
    c::system_prune::run
);
const INFO: Verb = verb!(
    "info",
    "Display system-wide information",
    c::info::Info,
    c::info::run
);
const ATTACH: Verb = verb!(
    "attach",
    "Attach to a running container",
    c::attach::Attach,
    c::attach::run
);
const CP: Verb = verb!(
    "cp",
    "Copy files between a container and the host",
    c::cp::Copy,
    c::cp::run
);
const CREATE: Verb = verb!(
    "create",
    "Create a new container",
    c::create::Create,
    c::create::run
);
const EVENTS: Verb = verb!(
    "events",
    "Get real time events",
    c::events::Stream,
    c::events::run
);
const HISTORY: Verb = verb!(
    "history",
    "Show the history of an image",
    c::history::History,
    c::history::run
);
const IMPORT: Verb = verb!(
    "import",
    "Make an image from a tarball",
    c::import::Import,
    c::import::run
);
const KILL: Verb = verb!("kill", "Kill running containers", c::kill::Kill, c::kill::run);
const LOAD: Verb = verb!(
    "load",
    "Load images from a tar archive or layout",
    c::load::Load,
    c::load::run
);
const LOGS: Verb = verb!(
    "logs",
    "Fetch the logs of a container",
    c::logs::Logs,
    c::logs::run
);
const PAUSE: Verb = verb!(
    "pause",
    "Freeze all processes of containers",
    c::pause::Pause,
    c::pause::run
);
const PORT: Verb = verb!(
    "port",
    "List port mappings of a container",
    c::port::Port,
    c::port::run
);
const RENAME: Verb = verb!("rename", "Rename a container", c::rename::Rename, c::rename::run);
const RESTART: Verb = verb!(
    "restart",
    "Restart containers",
    c::restart::Restart,
    c::restart::run
);
const SAVE: Verb = verb!(
    "save",
    "Save images to a tar archive or layout",
    c::save::Save,
    c::save::run
);
const START: Verb = verb!(
    "start",
    "Start stopped containers",
    c::start::Start,
    c::start::run
);
const STATS: Verb = verb!(
    "stats",
    "Show resource usage of containers",
    c::stats::Stats,
    c::stats::run
);
const STOP: Verb = verb!("stop", "Stop running containers", c::stop::Stop, c::stop::run);
const TAG: Verb = verb!("tag", "Give an image another name", c::tag::Tag, c::tag::run);
const TOP: Verb = verb!(
    "top",
    "Show the processes of a container",
    c::top::Top,
    c::top::run
);
const UNPAUSE: Verb = verb!(
    "unpause",
    "Thaw all processes of containers",
    c::unpause::Unpause,
    c::unpause::run
);
const UPDATE: Verb = verb!(
    "update",
    "Change limits of containers",
    c::update::Update,
    c::update::run
);

pub static VERBS: &[Verb] = &[
    RUN,
    EXEC,
    verb!("ps", "List containers", c::ps::Ps, c::ps::run),
    PULL,
    PUSH,
    verb!("images", "List images", c::images::List, c::images::run),
    DF,
    SYSTEM_PRUNE,
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
    INFO,
    ATTACH,
    CP,
    CREATE,
    EVENTS,
    verb!(
        "export",
        "Export a container's filesystem as a tar archive",
        c::export::Export,
        c::export::run
    ),
    HISTORY,
    IMPORT,
    verb!(
        "inspect",
        "Return low-level information on objects",
        c::inspect::Inspect,
        c::inspect::run
    ),
    KILL,
    LOAD,
    LOGS,
    PAUSE,
    PORT,
    RENAME,
    RESTART,
    verb!("rm", "Remove containers", c::rm::Remove, c::rm::run),
    verb!("rmi", "Remove images", c::rmi::Remove, c::rmi::run),
    SAVE,
    START,
    STATS,
    STOP,
    TAG,
    TOP,
    UNPAUSE,
    UPDATE,
    verb!(
        "wait",
        "Wait until containers end, print their exit codes",
        c::wait::Wait,
        c::wait::run
    ),
];

pub static GROUPS: &[Group] = &[
    Group {
        name: "container",
        about: "Manage containers",
        verbs: &[
            RUN,
            EXEC,
            verb!("ls" | "list" | "ps", "List containers", c::ps::Ps, c::ps::run),
            ATTACH,
            CP,
            CREATE,
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
            KILL,
            LOGS,
            PAUSE,
            PORT,
            verb!(
                "prune",
                "Remove all stopped containers",
                c::container_prune::Prune,
                c::container_prune::run
            ),
            RENAME,
            RESTART,
            verb!("rm" | "remove", "Remove containers", c::rm::Remove, c::rm::run),
            START,
            STATS,
            STOP,
            TOP,
            UNPAUSE,
            UPDATE,
            verb!("wait", "Wait until containers end", c::wait::Wait, c::wait::run),
        ],
    },
    Group {
        name: "image",
        about: "Manage images",
        verbs: &[
            verb!("ls" | "list", "List images", c::images::List, c::images::run),
            HISTORY,
            IMPORT,
            verb!(
                "inspect",
                "Show images in full",
                c::inspect::Images,
                c::inspect::images
            ),
            LOAD,
            verb!(
                "prune",
                "Remove unused images",
                c::image_prune::Prune,
                c::image_prune::run
            ),
            PULL,
            PUSH,
            verb!("rm" | "remove", "Remove images", c::rmi::Remove, c::rmi::run),
            SAVE,
            TAG,
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
        name: "kernel",
        about: "Manage the kernels of microVMs",
        verbs: &[
            verb!("add", "Register a kernel", c::kernel::Add, c::kernel::add),
            verb!(
                "default",
                "Show or set the kernel of microVMs that name none",
                c::kernel::Choose,
                c::kernel::default
            ),
            verb!("ls" | "list", "List kernels", c::kernel::List, c::kernel::list),
            verb!(
                "rm" | "remove",
                "Remove kernels",
                c::kernel::Remove,
                c::kernel::remove
            ),
        ],
    },
    Group {
        name: "system",
        about: "Manage berth",
        verbs: &[DF, EVENTS, INFO, SYSTEM_PRUNE],
    },
];
