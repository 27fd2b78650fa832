//! `berth kernel`.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use berth_engine::kernel;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer::{self, Rows};

#[derive(Debug, Args)]
pub struct Add {
    /// bzImage or vmlinux
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Its modules; by default /lib/modules/RELEASE, and without that everything is taken to be built in
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Name
    name: String,
}

pub fn add(args: Add, context: &Context) -> Result<Exit> {
    let guest = kernel::guest_program()?;
    // Before anything is stored: without it the kernel would be of no use.
    kernel::check_guest(&guest)?;
    let kernels = context.kernels();
    let record = kernels.add(&args.name, &args.kernel, args.modules.as_deref())?;
    for lack in &record.lacks {
        printer::warning(lack);
    }
    kernels.get(&args.name)?.initramfs(&guest)?;
    printer::line(&record.name)?;
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub struct Choose {
    /// The newest that a package installed on this host, again
    #[arg(long, conflicts_with = "name")]
    host: bool,
    /// Makes this kernel the default
    name: Option<String>,
}

pub fn default(args: Choose, context: &Context) -> Result<Exit> {
    let kernels = context.kernels();
    if args.host || args.name.is_some() {
        kernels.choose(args.name.as_deref())?;
    }
    let name = match args.name {
        Some(name) => name,
        None => kernels.default()?.record().name.clone(),
    };
    printer::line(&name)?;
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub struct List {
    /// table, json, or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

pub fn list(args: List, context: &Context) -> Result<Exit> {
    let kernels = context.kernels();
    let default = kernels.default_name()?;
    let now = Timestamp::now();
    let rows = kernels.list()?.into_iter().map(|record| {
        let is_default = default.as_deref() == Some(&record.name);
        json!({
            "Name": record.name, "Release": record.release, "Digest": record.digest,
            "Modules": record.modules.len().to_string(), "Lacks": record.lacks.join(" "),
            "CreatedAt": record.created.to_string(),
            "CreatedSince": printer::ago(record.created, now),
            "Size": printer::decimal(record.size), "Source": record.source.path,
            "Default": if is_default { "*" } else { "" },
        })
    });
    let rows = Rows {
        headings: &[
            ("Default", "DEFAULT"),
            ("Name", "NAME"),
            ("Release", "RELEASE"),
            ("Digest", "DIGEST"),
            ("Modules", "MODULES"),
            ("Lacks", "LACKS"),
            ("CreatedAt", "CREATED AT"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
            ("Source", "SOURCE"),
        ],
        table: "{{.Name}}\t{{.Release}}\t{{.Modules}}\t{{.CreatedSince}}\t{{.Size}}\t{{.Default}}",
        quiet: Some("{{.Name}}"),
        rows: rows.collect(),
    };
    rows.print(args.format.as_deref(), args.quiet)?;
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub struct Remove {
    /// Kernels
    #[arg(required = true, value_name = "KERNEL")]
    names: Vec<String>,
}

pub fn remove(args: Remove, context: &Context) -> Result<Exit> {
    super::each(&args.names, |name| Ok(context.kernels().remove(name)?))
}
