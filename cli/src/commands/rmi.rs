//! `berth rmi`.

use crate::printer;
use berth_engine::events::Kind;
use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
pub struct Remove {
    /// Even if stopped containers use it; one that is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(args: Remove, context: &Context) -> Result<Exit> {
    let images = context.images()?;
    super::each_silently(&args.images, |name| {
        let removed = match images.remove(name, args.force, &|| super::uses(context)) {
            // What should not be there is not there: told, and no failure.
            Err(error @ berth_images::Error::NotFound(_)) if args.force => {
                Failure::from(error).report();
                return Ok(());
            }
            removed => removed?,
        };
        for name in &removed.untagged {
            printer::line(&format!("Untagged: {}", printer::harmless(name)))?;
        }
        for digest in &removed.deleted {
            printer::line(&format!("Deleted: {digest}"))?;
        }
        context.happened(Kind::Image, "untag", name)?;
        // The image's own digest is the first; those behind it are its layers'.
        match removed.deleted.first() {
            Some(id) => context.happened(Kind::Image, "delete", &id.to_string()),
            None => Ok(()),
        }
    })
}
