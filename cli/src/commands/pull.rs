//! `berth pull`.

use berth_images::{Image, Platform, Policy, PullOptions, Reference};
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
    let images = context.registries()?;
    let progress = progress::choose(args.quiet);
    let references = if args.all_tags {
        let repository = repository(&args.image, "--all-tags pulls")?;
        images
            .remote_tags(&repository, progress.as_ref())
            .map_err(|e| Failure::from(e).during("pull", &args.image))?
    } else {
        vec![parse(&args.image)?]
    };
    for reference in references {
        let before = images.resolve(&reference.canonical()).ok();
        let options = PullOptions {
            platform: args.platform.as_ref(),
            policy: Policy::Always,
            progress: progress.as_ref(),
        };
        let image = images
            .pull(&reference, options)
            .map_err(|e| Failure::from(e).during("pull", &reference))?;
        if !args.quiet {
            let is_known = before.is_some_and(|before| before.manifest_digest == image.manifest_digest);
            let status = if is_known {
                "Image is up to date for"
            } else {
                "Downloaded newer image for"
            };
            printer::line(&format!("Digest: {}", image.target.digest))?;
            printer::line(&format!("Status: {status} {reference}"))?;
        }
        printer::line(&reference.to_string())?;
        note(&reference, context)?;
    }
    Ok(Exit::Success)
}

/// A repository as typed for all of its tags: `what` is what the flag does with one.
pub fn repository(typed: &str, what: &str) -> Result<Reference> {
    let name = typed.rsplit('/').next().unwrap_or(typed);
    if name.contains([':', '@']) {
        return Err(Failure::new(format!(
            "{what} a repository; {typed:?} names one image of it"
        )));
    }
    parse(typed)
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
            found => {
                warn_of_platform(&found?);
                return Ok(());
            }
        }
    }
    let policy = match policy {
        "always" => Policy::Always,
        "never" => Policy::Never,
        _ => Policy::Missing,
    };
    let reference = parse(image)?;
    let progress = progress::choose(quiet);
    let options = PullOptions {
        platform,
        policy,
        progress: progress.as_ref(),
    };
    context
        .registries()?
        .pull(&reference, options)
        .map_err(|e| Failure::from(e).during("pull", &reference))?;
    note(&reference, context)
}

/// Says so when an image is for another machine and nobody asked for that; its programs may not run here.
fn warn_of_platform(image: &Image) {
    let host = Platform::host();
    if host.rank(&image.platform).is_none() {
        let id = &image.id;
        let name = image.names.first().map_or_else(|| id.as_str(), String::as_str);
        printer::warning(&format!(
            "{} is for {}, this host is {host}",
            printer::harmless(name),
            image.platform
        ));
    }
}
