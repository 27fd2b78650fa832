//! `berth create`.

use berth_engine::{CreateRequest, Created, Engine, RemoveOptions};
use clap::Args;

use crate::container_args::ContainerArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
#[command(override_usage = "berth create [OPTIONS] <IMAGE> [COMMAND]...")]
pub struct Create {
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    container: ContainerArgs,
}

pub fn run(args: Create, context: &Context) -> Result<Exit> {
    let created = make(args.container, args.rm, false, context, Engine::create)
        .map_err(|failure| failure.with_exit(Exit::Berth))?;
    printer::line(created.id.as_str())?;
    Ok(Exit::Success)
}

/// Makes the container of `run` and `create` by the engine's call for it: image here or pulled, record written, id in the
/// cidfile.
pub fn make(
    args: ContainerArgs,
    auto_remove: bool,
    detach: bool,
    context: &Context,
    create: impl FnOnce(&Engine, &CreateRequest) -> berth_engine::Result<Created>,
) -> Result<Created> {
    let cidfile = args.cidfile.clone();
    if let Some(path) = &cidfile
        && path.exists()
    {
        return Err(crate::failure::Failure::new(format!(
            "container id file {} exists already",
            path.display()
        )));
    }
    super::pull::ensure(
        args.image(),
        &args.pull,
        args.platform.as_ref(),
        args.quiet,
        context,
    )?;
    let engine = context.engine()?;
    let created = create(&engine, &args.into_request(auto_remove, detach)?)?;
    for warning in &created.warnings {
        printer::warning(warning);
    }
    if let Some(path) = cidfile {
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, created.id.as_str().as_bytes()));
        if let Err(e) = written {
            engine.remove(
                &created.id,
                RemoveOptions {
                    force: true,
                    volumes: true,
                },
            )?;
            return Err(crate::failure::Failure::new(format!(
                "write container id file {}: {e}",
                path.display()
            )));
        }
    }
    Ok(created)
}
