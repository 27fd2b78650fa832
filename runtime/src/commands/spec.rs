//! `spec`: a first config.json to edit.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use oci_spec::runtime::{Spec, SpecBuilder};
use serde_json::json;

use super::{Failure, Outcome};

#[derive(Args)]
pub struct SpecArgs {
    /// Directory to write config.json in
    #[arg(long, short, default_value = ".")]
    pub bundle: PathBuf,
    /// For a caller without privilege
    #[arg(long)]
    pub rootless: bool,
}

pub fn spec(args: &SpecArgs) -> Outcome {
    let spec = if args.rootless {
        Spec::rootless(
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    } else {
        SpecBuilder::default()
            .build()
            .map_err(|e| Failure::new(e.to_string()))?
    };
    let mut value = serde_json::to_value(&spec).map_err(|e| Failure::new(e.to_string()))?;
    value["ociVersion"] = json!("1.2.0");
    value["hostname"] = json!("berth");
    value["process"]["terminal"] = json!(true);
    value["process"]["args"] = json!(["sh"]);
    value["root"] = json!({"path": "rootfs", "readonly": true});
    for set in ["inheritable", "ambient"] {
        // Not from what is inherited: CVE-2022-24769.
        value["process"]["capabilities"][set] = json!([]);
    }
    let path = args.bundle.join("config.json");
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path);
    let write =
        |mut file: std::fs::File| std::io::Write::write_all(&mut file, format!("{value:#}\n").as_bytes());
    opened
        .and_then(write)
        .map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
    Ok(ExitCode::SUCCESS)
}
