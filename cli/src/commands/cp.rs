//! `berth cp`.

use clap::Args;
use std::io::{self, BufWriter, IsTerminal};
use std::path::Path;

use berth_engine::copy::Options;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Copy {
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Follow a symlink that SRC is
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of this host, or - for a tar
    source: String,
    /// CONTAINER:PATH, a path of this host, or - for a tar
    target: String,
}

pub fn run(args: Copy, context: &Context) -> Result<Exit> {
    copy_as_asked(&args, context).map_err(|failure| {
        // Without it a path alone would not say on which side it was looked for.
        let (source, target) = (&args.source, &args.target);
        failure.within(&format!("copy {source} to {target}"))
    })?;
    // Told to people only, as docker has it.
    if !args.quiet && args.target != "-" && io::stdout().is_terminal() {
        printer::prompt(&format!(
            "copied {} to {}\n",
            printer::harmless(&args.source),
            printer::harmless(&args.target)
        ));
    }
    Ok(Exit::Success)
}

fn copy_as_asked(args: &Copy, context: &Context) -> Result<()> {
    let options = Options {
        archive: args.archive,
        follow: args.follow_link,
    };
    match (inside(&args.source), inside(&args.target)) {
        (Some((container, path)), None) => {
            let engine = context.engine()?;
            let (id, path) = (engine.find(container)?, Path::new(path));
            if args.target == "-" {
                engine.write_archive(&id, path, BufWriter::new(io::stdout().lock()), options)?;
            } else {
                engine.copy_from(&id, path, Path::new(&args.target), options)?;
            }
        }
        (None, Some((container, path))) => {
            let engine = context.engine()?;
            let (id, path) = (engine.find(container)?, Path::new(path));
            if args.source == "-" {
                engine.read_archive(&id, path, io::stdin().lock(), options)?;
            } else {
                engine.copy_into(&id, Path::new(&args.source), path, options)?;
            }
        }
        (Some(_), Some(_)) => {
            return Err(Failure::unsupported(
                "copying between containers",
                "go through the host or a pipe",
            ));
        }
        (None, None) => return Err(Failure::new("one of the paths must be CONTAINER:PATH")),
    }
    Ok(())
}

/// A path with a slash in front or a dot is of this host, as docker reads it.
fn inside(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':')
        .filter(|(container, path)| !container.is_empty() && !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_side_is_the_container() {
        assert_eq!(inside("web:/etc/x:y"), Some(("web", "/etc/x:y")));
        for host in ["/a:b", "./a:b", "-", "file", ":x"] {
            assert_eq!(inside(host), None, "{host}");
        }
    }
}
