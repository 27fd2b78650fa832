//! `features`: what this runtime can do (features.md of the specification).

use std::process::ExitCode;

use serde_json::json;

use super::{Outcome, print};

pub fn features() -> Outcome {
    print(&format!("{:#}\n", berth_runtime::features::describe(json!({}))));
    Ok(ExitCode::SUCCESS)
}
