//! `berth push`.

use berth_images::{Error, Images, Platform, Reference};
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;
use crate::progress;

#[derive(Debug, Args)]
pub struct Push {
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Fail unless the image is for this platform
    #[arg(long, value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// Say nothing while pushing
    #[arg(short, long)]
    quiet: bool,
    /// Image; with --all-tags a repository
    image: String,
}

pub fn run(args: Push, context: &Context) -> Result<Exit> {
    let images = context.registries()?;
    let references = if args.all_tags {
        tags(&images, &args.image)?
    } else {
        vec![super::pull::parse(&args.image)?]
    };
    let progress = progress::choose(args.quiet);
    for reference in references {
        if let Some(platform) = &args.platform {
            check(&images, &reference, platform)?;
        }
        let digest = images.push(&reference, progress.as_ref())?;
        context.happened(berth_engine::events::Kind::Image, "push", &reference.to_string())?;
        printer::line(&if args.quiet {
            reference.to_string()
        } else {
            format!("{reference}: digest: {digest}")
        })?;
    }
    Ok(Exit::Success)
}

fn tags(images: &Images, typed: &str) -> Result<Vec<Reference>> {
    let repository = super::pull::repository(typed, "--all-tags pushes")?;
    let tags = images.tags(&repository)?;
    if tags.is_empty() {
        return Err(Error::NotFound(typed.to_owned()).into());
    }
    Ok(tags)
}

fn check(images: &Images, reference: &Reference, platform: &Platform) -> Result<()> {
    let image = images.resolve(&reference.to_string())?;
    if platform.rank(&image.platform).is_some() {
        return Ok(());
    }
    Err(Error::NoPlatform {
        object: reference.to_string(),
        platform: platform.to_string(),
        offers: image.platform.to_string(),
    }
    .into())
}
