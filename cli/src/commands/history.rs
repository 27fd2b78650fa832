//! `berth history`.

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer::{self, Rows};

#[derive(Debug, Args)]
pub struct History {
    /// table, json, or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Whole ids and instructions
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Image
    image: String,
}

pub fn run(args: History, context: &Context) -> Result<Exit> {
    let now = Timestamp::now();
    let cut = |text: &str, length: usize| -> String {
        if args.no_trunc || text.chars().count() <= length {
            return text.to_owned();
        }
        text.chars().take(length - 1).chain(['…']).collect()
    };
    let rows = context
        .images()?
        .history(&args.image)?
        .into_iter()
        .map(|row| {
            let created = row.created.parse::<Timestamp>().ok();
            let id = row.id.strip_prefix("sha256:").unwrap_or(&row.id);
            json!({
                "ID": if args.no_trunc { row.id.clone() } else { id.chars().take(12).collect() },
                "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |then| printer::ago(then, now)),
                "CreatedAt": created
                    .and_then(|at| at.round(jiff::Unit::Second).ok())
                    .map_or_else(|| "N/A".to_owned(), |at| at.to_string()),
                "CreatedBy": cut(&row.created_by, 45),
                "Size": printer::decimal(row.size),
                "Comment": row.comment,
            })
        })
        .collect();
    let rows = Rows {
        headings: &[
            ("ID", "IMAGE"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("CreatedBy", "CREATED BY"),
            ("Size", "SIZE"),
            ("Comment", "COMMENT"),
        ],
        table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        quiet: Some("{{.ID}}"),
        rows,
    };
    rows.print(args.format.as_deref(), args.quiet)?;
    Ok(Exit::Success)
}
