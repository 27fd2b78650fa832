//! `list` and `ps`.

use std::process::ExitCode;

use berth_runtime::ps::Layout;
use berth_runtime::{Container, StateRoot};
use clap::{Args, ValueEnum};

use super::{Failure, Outcome, load, print};

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Args)]
pub struct ListArgs {
    /// table or json
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: Format,
    /// Ids alone
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Args)]
pub struct PsArgs {
    /// table or json
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: Format,
    /// The container
    pub id: String,
    /// Options of ps(1): -ef, aux, or -o with columns
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

pub fn list(root: &StateRoot, args: &ListArgs) -> Outcome {
    let mut states = Vec::new();
    for id in root.list()? {
        // Deleted since, or never recorded.
        let Ok(container) = Container::load(root, &id) else {
            continue;
        };
        states.push(container.state()?);
    }
    let text = |state: &serde_json::Value, key: &str| match &state[key] {
        serde_json::Value::String(s) => s.escape_debug().to_string(),
        other => other.to_string(),
    };
    let mut out = String::new();
    if args.quiet {
        for state in &states {
            out.push_str(&text(state, "id"));
            out.push('\n');
        }
    } else if args.format == Format::Json {
        out = format!("{}\n", serde_json::Value::Array(states));
    } else {
        let mut rows = vec![
            ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
                .map(String::from)
                .to_vec(),
        ];
        for state in &states {
            let owner = if state["owner"] == "" {
                "root".into()
            } else {
                text(state, "owner")
            };
            let [id, pid, status, bundle, created] =
                ["id", "pid", "status", "bundle", "created"].map(|key| text(state, key));
            rows.push(vec![id, pid, status, bundle, created, owner]);
        }
        out = table(&rows);
    }
    print(&out);
    Ok(ExitCode::SUCCESS)
}

pub fn ps(root: &StateRoot, args: &PsArgs) -> Outcome {
    let layout = Layout::parse(&args.options).map_err(|e| Failure::new(e.to_string()))?;
    let pids = load(root, &args.id)?.processes()?;
    if args.format == Format::Json {
        print(&format!("{}\n", serde_json::json!(pids)));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![layout.titles()];
    rows.extend(layout.rows(&pids));
    print(&table(&rows));
    Ok(ExitCode::SUCCESS)
}

/// Cells below one another; the last column is as long as it likes.
fn table(rows: &[Vec<String>]) -> String {
    let mut widths = vec![0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let last = n + 1 == row.len();
            out.push_str(&if last {
                cell.clone()
            } else {
                format!("{cell:<width$}   ")
            });
        }
        out.push('\n');
    }
    out
}
