//! `berth volume`.

use clap::Args;
use std::collections::BTreeMap;

use berth_engine::events::Kind;
use berth_engine::volumes::Volume;
use serde_json::json;

use crate::container_args::pair_or_key;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::filter::{Filter, PruneFilter, label_matches};
use crate::printer::{self, Rows};

#[derive(Debug, Args)]
pub struct Create {
    /// Driver
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Label
    #[arg(long)]
    label: Vec<String>,
    /// Driver option
    #[arg(short, long)]
    opt: Vec<String>,
    /// Name; a random one if none is given
    name: Option<String>,
}

pub fn create(args: Create, context: &Context) -> Result<Exit> {
    if args.driver != "local" {
        return Err(Failure::unsupported(
            &format!("volume driver {}", args.driver),
            "berth has local volumes",
        ));
    }
    if !args.opt.is_empty() {
        return Err(Failure::unsupported(
            "--opt",
            "local volumes are plain directories",
        ));
    }
    let labels = args.label.iter().map(|text| pair_or_key(text)).collect();
    let volume = context
        .volumes()
        .create(args.name.as_deref(), labels, BTreeMap::new())?;
    context.happened(Kind::Volume, "create", &volume.name)?;
    printer::line(&volume.name)?;
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// json or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

pub fn inspect(args: Inspect, context: &Context) -> Result<Exit> {
    super::inspect::all(&args.names, args.format.as_deref(), |name| {
        Ok(serde_json::to_value(context.volumes().inspect(name)?)?)
    })
}

#[derive(Debug, Args)]
pub struct List {
    /// name, label, driver, dangling
    #[arg(short, long = "filter")]
    filter: Vec<Filter>,
    /// table, json, or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

pub fn list(args: List, context: &Context) -> Result<Exit> {
    let mut rows = Vec::new();
    for volume in context.volumes().list()? {
        if fits(&args.filter, &volume, context)? {
            let labels: Vec<String> = volume
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            rows.push(json!({
                "Driver": volume.driver, "Labels": labels.join(","), "Mountpoint": volume.mountpoint,
                "Name": volume.name, "Scope": volume.scope,
            }));
        }
    }
    let rows = Rows {
        headings: &[
            ("Driver", "DRIVER"),
            ("Name", "VOLUME NAME"),
            ("Labels", "LABELS"),
            ("Mountpoint", "MOUNTPOINT"),
            ("Scope", "SCOPE"),
        ],
        table: "{{.Driver}}\t{{.Name}}",
        quiet: Some("{{.Name}}"),
        rows,
    };
    rows.print(args.format.as_deref(), args.quiet)?;
    Ok(Exit::Success)
}

fn fits(filters: &[Filter], volume: &Volume, context: &Context) -> Result<bool> {
    for Filter { key, value } in filters {
        let holds = match key.as_str() {
            "name" => volume.name.contains(value.as_str()),
            "driver" => volume.driver == *value,
            "label" => label_matches(value, |key| volume.labels.get(key).map(String::as_str)),
            "dangling" => (value == "true") == context.volumes().users(&volume.name)?.is_empty(),
            other => {
                return Err(Failure::unsupported(
                    &format!("filter {other}"),
                    "use name, label, driver or dangling",
                ));
            }
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Debug, Args)]
pub struct Prune {
    /// Named volumes too
    #[arg(short, long)]
    all: bool,
    /// label, label!
    #[arg(long = "filter")]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub fn prune(args: Prune, context: &Context) -> Result<Exit> {
    let filter = PruneFilter::new(&args.filter, false)?;
    if !args.force && !super::confirmed("This removes volumes no container uses.")? {
        return Ok(Exit::Success);
    }
    let bytes = unused(args.all, &filter, context)?;
    printer::line(&format!("Total reclaimed space: {}", printer::decimal(bytes)))?;
    Ok(Exit::Success)
}

/// Removes volumes no container uses and tells them; returns the bytes given back.
pub fn unused(all: bool, filter: &PruneFilter, context: &Context) -> Result<u64> {
    let wanted = |volume: &Volume| filter.fits(None, |key| volume.labels.get(key).map(String::as_str));
    let (names, bytes) = context.volumes().prune(all, wanted)?;
    for name in &names {
        context.happened(Kind::Volume, "destroy", name)?;
    }
    super::deleted("Volumes", names.into_iter())?;
    Ok(bytes)
}

#[derive(Debug, Args)]
pub struct Remove {
    /// Missing volumes are fine
    #[arg(short, long)]
    force: bool,
    /// Volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

pub fn remove(args: Remove, context: &Context) -> Result<Exit> {
    super::each(&args.names, |name| {
        context.volumes().remove(name, args.force)?;
        context.happened(Kind::Volume, "destroy", name)
    })
}
