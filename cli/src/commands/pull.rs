//! `berth pull`.

use berth_images::{Platform, Policy, PullOptions, Reference};
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::printer;
use crate::progress;

#[derive(Debug, Args)]
pub struct Pull {
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Platform, such as linux/amd64
    #[arg(long, value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// Only the image's name
    #[arg(short, long)]
    quiet: bool,
    /// Image
    image: String,
}

pub fn run(args: Pull, context: &Context) -> Result<Exit> {
    if args.all_tags {
        return Err(Failure::unsupported(
            "--all-tags",
            "berth pulls one tag at a time",
        ));
    }
    let reference: Reference = parse(&args.image)?;
    let progress = progress::choose(args.quiet);
    let options = PullOptions {
        platform: args.platform.as_ref(),
        policy: Policy::Always,
        progress: progress.as_ref(),
    };
    let image = context.registries()?.pull(&reference, options)?;
    if args.quiet {
        printer::line(&reference.to_string())?;
    } else {
        printer::line(&format!("Digest: {}", image.manifest_digest))?;
        printer::line(&reference.to_string())?;
    }
    note(&reference, context)?;
    Ok(Exit::Success)
}

/// A reference as typed.
pub fn parse(text: &str) -> Result<Reference> {
    text.parse()
        .map_err(|e| Failure::new(format!("invalid reference {text:?}: {e}")))
}

fn note(reference: &Reference, context: &Context) -> Result<()> {
    context.happened(berth_engine::events::Kind::Image, "pull", &reference.to_string())
}

/// Pulls an image for `run` and `create` if the policy says so. Its threads are gone when it returns.
pub fn ensure(
    image: &str,
    policy: &str,
    platform: Option<&Platform>,
    quiet: bool,
    context: &Context,
) -> Result<()> {
    let images = context.images()?;
    if policy != "always" && platform.is_none() {
        match images.resolve(image) {
            Err(berth_images::Error::NotFound(_)) if policy == "missing" => {}
            other => return other.map(|_| ()).map_err(Failure::from),
        }
    }
    let policy = match policy {
        "always" => Policy::Always,
        "never" => Policy::Never,
        _ => Policy::Missing,
    };
    let reference = parse(image)?;
    let progress = progress::choose(quiet);
    context.registries()?.pull(
        &reference,
        PullOptions {
            platform,
            policy,
            progress: progress.as_ref(),
        },
    )?;
    note(&reference, context)
}
