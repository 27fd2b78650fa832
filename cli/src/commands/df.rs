//! `berth system df`.

use berth_engine::volumes::disk_usage;
use berth_engine::{ListOptions, Summary};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{images, ps};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::printer::{self, Rows, decimal};

#[derive(Debug, Args)]
pub struct Usage {
    /// table, json, or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Every image, container and volume
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(args: Usage, context: &Context) -> Result<Exit> {
    let format = args.format.as_deref();
    if args.verbose {
        return each(format, context);
    }
    let images = context.images()?.df(&|| super::uses(context))?;
    let mut containers = Sum::default();
    for summary in all(context)? {
        let runs = summary.state.status.needs_shim();
        containers.add(disk_usage(&context.engine()?.paths().upper(&summary.id)), runs);
    }
    let volumes = context.volumes();
    let mut named = Sum::default();
    for volume in volumes.list()? {
        named.add(volumes.size(&volume), !volumes.users(&volume.name)?.is_empty());
    }
    let rows = Rows {
        headings: &[
            ("Type", "TYPE"),
            ("TotalCount", "TOTAL"),
            ("Active", "ACTIVE"),
            ("Size", "SIZE"),
            ("Reclaimable", "RECLAIMABLE"),
        ],
        table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        quiet: None,
        rows: vec![
            Sum {
                total: images.images,
                active: images.active,
                bytes: images.layers.saturating_add(images.blobs),
                reclaimable: images.reclaimable,
            }
            .row("Images"),
            containers.row("Containers"),
            named.row("Local Volumes"),
        ],
    };
    rows.print(format, false)?;
    Ok(Exit::Success)
}

fn all(context: &Context) -> Result<Vec<Summary>> {
    let options = ListOptions {
        all: true,
        ..ListOptions::default()
    };
    Ok(context.engine()?.list(&options)?)
}

/// One kind of object.
#[derive(Default)]
struct Sum {
    total: usize,
    active: usize,
    bytes: u64,
    reclaimable: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64, is_active: bool) {
        self.total += 1;
        self.active += usize::from(is_active);
        self.bytes += bytes;
        self.reclaimable += if is_active { 0 } else { bytes };
    }

    fn row(&self, kind: &str) -> Value {
        let share = u128::from(self.reclaimable) * 100;
        let reclaimable = match share.checked_div(u128::from(self.bytes)) {
            Some(percent) => format!("{} ({percent}%)", decimal(self.reclaimable)),
            None => decimal(0),
        };
        json!({
            "Type": kind, "TotalCount": self.total.to_string(), "Active": self.active.to_string(),
            "Size": decimal(self.bytes), "Reclaimable": reclaimable,
        })
    }
}

/// `--verbose`: a table of each kind, or one object with a list of each.
fn each(format: Option<&str>, context: &Context) -> Result<Exit> {
    let now = Timestamp::now();
    let (images, containers, volumes) = (
        image_rows(context, now)?,
        container_rows(context, now)?,
        volume_rows(context)?,
    );
    match format.filter(|format| !format.is_empty()) {
        None | Some("table") => {}
        Some("json") => {
            let lists = json!({"Images": images, "Containers": containers, "Volumes": volumes});
            printer::line(&lists.to_string())?;
            return Ok(Exit::Success);
        }
        Some(_) => {
            let why = "with --verbose it is table or json";
            return Err(Failure::unsupported("a template", why));
        }
    }
    let print = |title: &str, headings: &[(&str, &str)], rows: Vec<Value>| {
        let fields: Vec<String> = headings
            .iter()
            .map(|(field, _)| format!("{{{{.{field}}}}}"))
            .collect();
        let rows = Rows {
            headings,
            table: &fields.join("\t"),
            quiet: None,
            rows,
        };
        printer::line(&format!("{title}:\n"))?;
        printer::raw(rows.render(None, false)?.as_bytes())
    };
    print(
        "Images space usage",
        &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
            ("Containers", "CONTAINERS"),
        ],
        images,
    )?;
    printer::line("")?;
    print(
        "Containers space usage",
        &[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("Size", "SIZE"),
            ("RunningFor", "CREATED"),
            ("Status", "STATUS"),
            ("Names", "NAMES"),
        ],
        containers,
    )?;
    printer::line("")?;
    print(
        "Local Volumes space usage",
        &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
        volumes,
    )?;
    Ok(Exit::Success)
}

fn image_rows(context: &Context, now: Timestamp) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for usage in context.images()?.usage_of_each(&|| super::uses(context))? {
        for name in images::names(&usage.image) {
            let mut row = images::row(&usage.image, &name, false, now);
            row["SharedSize"] = json!(decimal(usage.shared));
            row["UniqueSize"] = json!(decimal(usage.unique));
            row["Containers"] = json!(usage.containers.to_string());
            rows.push(row);
        }
    }
    Ok(rows)
}

fn container_rows(context: &Context, now: Timestamp) -> Result<Vec<Value>> {
    let engine = context.engine()?;
    let row = |summary: &Summary| {
        let mut row = ps::row(summary, false, now);
        row["Size"] = json!(decimal(disk_usage(&engine.paths().upper(&summary.id))));
        row
    };
    Ok(all(context)?.iter().map(row).collect())
}

fn volume_rows(context: &Context) -> Result<Vec<Value>> {
    let volumes = context.volumes();
    let mut rows = Vec::new();
    for volume in volumes.list()? {
        let links = volumes.users(&volume.name)?.len().to_string();
        rows.push(json!({"Name": volume.name, "Links": links, "Size": decimal(volumes.size(&volume))}));
    }
    Ok(rows)
}
