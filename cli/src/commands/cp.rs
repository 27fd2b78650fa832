//! `berth cp`.

use clap::Args;
use std::io::{self, BufWriter};
use std::path::Path;

use berth_engine::copy::{self, Options, Rootfs};

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
    let options = Options {
        archive: args.archive,
        follow: args.follow_link,
    };
    match (inside(&args.source), inside(&args.target)) {
        (Some((container, path)), None) => {
            let rootfs = root_of(container, context)?;
            if args.target == "-" {
                copy::write_archive(
                    &rootfs,
                    Path::new(path),
                    BufWriter::new(io::stdout().lock()),
                    options,
                )?;
                return Ok(Exit::Success);
            }
            copy::from_container(&rootfs, Path::new(path), Path::new(&args.target), options)?;
        }
        (None, Some((container, path))) => {
            let rootfs = root_of(container, context)?;
            if args.source == "-" {
                copy::read_archive(&rootfs, Path::new(path), io::stdin().lock(), options)?;
                return Ok(Exit::Success);
            }
            copy::into_container(&rootfs, Path::new(&args.source), Path::new(path), options)?;
        }
        (Some(_), Some(_)) => {
            return Err(Failure::unsupported(
                "copying between containers",
                "go through the host or a pipe",
            ));
        }
        (None, None) => return Err(Failure::new("one of the paths must be CONTAINER:PATH")),
    }
    if !args.quiet {
        printer::prompt(&format!(
            "copied {} to {}\n",
            printer::harmless(&args.source),
            printer::harmless(&args.target)
        ));
    }
    Ok(Exit::Success)
}

/// A path with a slash in front or a dot is of this host, as docker reads it.
fn inside(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':')
        .filter(|(container, path)| !container.is_empty() && !path.is_empty())
}

/// The root of a container, running or not.
pub fn root_of(name: &str, context: &Context) -> Result<Rootfs> {
    let engine = context.engine()?;
    let id = engine.find(name)?;
    if let Some(root) = engine.live_root(&id)? {
        return Ok(Rootfs::of_directory(&root)?);
    }
    let config = engine.config(&id)?;
    berth_engine::rootfs::prepare(engine.paths(), &config)?;
    let lower: Vec<_> = config.image.layers.iter().rev().cloned().collect();
    Ok(Rootfs::of_layers(
        &lower,
        &engine.paths().upper(&id),
        &engine.paths().work(&id),
    )?)
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
