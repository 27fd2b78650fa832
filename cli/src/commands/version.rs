//! `berth version`.

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Version {
    /// json or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

pub fn run(args: Version, _: &Context) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let value = json!({
        "Client": {"Version": version, "Os": std::env::consts::OS, "Arch": std::env::consts::ARCH},
        "Server": {"Version": version, "Os": std::env::consts::OS, "Arch": std::env::consts::ARCH},
    });
    match args.format {
        None => printer::line(&format!(
            "berth {version} ({}/{})",
            std::env::consts::OS,
            std::env::consts::ARCH
        ))?,
        Some(format) if format == "json" => printer::line(&value.to_string())?,
        Some(format) => printer::inspect(vec![value], Some(&format))?,
    }
    Ok(Exit::Success)
}
