//! `berth inspect`.

use clap::Args;
use serde_json::Value;

use super::Size;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Inspect {
    /// json or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Only objects of this kind
    #[arg(long = "type", value_parser = ["container", "image", "volume", "network"])]
    kind: Option<String>,
    /// Of containers, how much they take on disk too
    #[arg(short, long)]
    size: bool,
    /// Containers, images, volumes or networks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Containers {
    /// json or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// How much they take on disk too
    #[arg(short, long)]
    size: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Images {
    /// json or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

pub fn run(args: Inspect, context: &Context) -> Result<Exit> {
    let kind = args.kind.as_deref();
    all(&args.names, args.format.as_deref(), |name| {
        let kinds: [(&str, Look); 4] = [
            ("container", container),
            ("image", image),
            ("volume", volume),
            ("network", network),
        ];
        for (word, look) in kinds {
            if kind.is_none_or(|kind| kind == word)
                && let Some(mut value) = look(name, context)?
            {
                if args.size && word == "container" {
                    add_size(&mut value, name, context)?;
                }
                return Ok(value);
            }
        }
        Err(Failure::new(format!(
            "no such {}: {name}",
            kind.unwrap_or("object")
        )))
    })
}

pub fn containers(args: Containers, context: &Context) -> Result<Exit> {
    all(&args.names, args.format.as_deref(), |name| {
        let engine = context.engine()?;
        let mut value = engine.inspect(&engine.find(name)?)?;
        if args.size {
            add_size(&mut value, name, context)?;
        }
        Ok(value)
    })
}

fn add_size(value: &mut Value, name: &str, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let id = engine.find(name)?;
    let size = Size::of(&id, &engine.config(&id)?, context)?;
    value["SizeRw"] = size.written.into();
    value["SizeRootFs"] = (size.written + size.image).into();
    Ok(())
}

pub fn images(args: Images, context: &Context) -> Result<Exit> {
    all(&args.names, args.format.as_deref(), |name| {
        Ok(context.images()?.inspect(name)?)
    })
}

/// Prints what was found, then tells what was not.
pub fn all(names: &[String], format: Option<&str>, look: impl Fn(&str) -> Result<Value>) -> Result<Exit> {
    let mut values = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match look(name) {
            Ok(value) => values.push(value),
            Err(failure) => failures.push(failure),
        }
    }
    printer::inspect(values, format)?;
    Ok(failures.iter().fold(Exit::Success, |_, failure| failure.report()))
}

type Look = fn(&str, &Context) -> Result<Option<Value>>;

fn container(name: &str, context: &Context) -> Result<Option<Value>> {
    let engine = context.engine()?;
    match engine.find(name) {
        Ok(id) => Ok(Some(engine.inspect(&id)?)),
        Err(berth_engine::Error::NoSuchContainer(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn image(name: &str, context: &Context) -> Result<Option<Value>> {
    match context.images()?.inspect(name) {
        Ok(value) => Ok(Some(value)),
        Err(berth_images::Error::NotFound(_) | berth_images::Error::Reference { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn volume(name: &str, context: &Context) -> Result<Option<Value>> {
    use berth_engine::volumes::Error;
    match context.volumes().inspect(name) {
        Ok(volume) => Ok(Some(serde_json::to_value(volume)?)),
        Err(Error::Missing(_) | Error::Name(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn network(name: &str, context: &Context) -> Result<Option<Value>> {
    use berth_engine::network::Error;
    match context.networks()?.inspect(name) {
        Ok(network) => Ok(Some(network)),
        Err(Error::NotFound(_) | Error::Name(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
