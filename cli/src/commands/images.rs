//! `berth images`.

use berth_images::Image;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::filter::{Filter, label_matches};
use crate::printer::{self, Rows};

#[derive(Debug, Args)]
pub struct List {
    /// Accepted for docker's sake: berth keeps no intermediate images
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// reference, label, dangling
    #[arg(short, long = "filter")]
    filter: Vec<Filter>,
    /// table, json, or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Only this repository, or this name
    repository: Option<String>,
}

pub fn run(args: List, context: &Context) -> Result<Exit> {
    let now = Timestamp::now();
    let mut rows = Vec::new();
    for image in context.images()?.list()? {
        let names = if image.names.is_empty() {
            vec!["<none>:<none>".to_owned()]
        } else {
            image.names.clone()
        };
        for name in names {
            let (repository, tag) = split(&name);
            let asked = args
                .repository
                .as_deref()
                .is_none_or(|wanted| wanted == name || wanted == repository);
            if asked && fits(&args.filter, &image, &name)? {
                rows.push(row(&image, repository, tag, args.no_trunc, now));
            }
        }
    }
    let rows = Rows {
        headings: &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("Digest", "DIGEST"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("Size", "SIZE"),
        ],
        table: if args.digests {
            "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        } else {
            "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        },
        quiet: Some("{{.ID}}"),
        rows,
    };
    rows.print(args.format.as_deref(), args.quiet)?;
    Ok(Exit::Success)
}

/// `host:5000/name:tag`: the tag stands behind the last colon, unless that is the port's.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once(':')
        .filter(|(_, tag)| !tag.contains('/'))
        .unwrap_or((name, "<none>"))
}

fn fits(filters: &[Filter], image: &Image, name: &str) -> Result<bool> {
    for Filter { key, value } in filters {
        let holds = match key.as_str() {
            "reference" => name == value || split(name).0 == value,
            "label" => label_matches(value, |key| {
                image.config.config.labels.get(key).map(String::as_str)
            }),
            "dangling" => (value == "true") == image.names.is_empty(),
            other => {
                return Err(Failure::unsupported(
                    &format!("filter {other}"),
                    "use reference, label or dangling",
                ));
            }
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

fn row(image: &Image, repository: &str, tag: &str, whole: bool, now: Timestamp) -> Value {
    let id = image.id.to_string();
    let short: String = id
        .split(':')
        .next_back()
        .unwrap_or_default()
        .chars()
        .take(12)
        .collect();
    let created = image
        .created
        .as_deref()
        .and_then(|text| text.parse::<Timestamp>().ok());
    json!({
        "Repository": repository,
        "Tag": tag,
        "Digest": image.manifest_digest.to_string(),
        "ID": if whole { id } else { short },
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |then| printer::ago(then, now)),
        "CreatedAt": image.created.clone().unwrap_or_default(),
        "Size": printer::decimal(image.size),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(split("localhost:5000/a/b:1"), ("localhost:5000/a/b", "1"));
        assert_eq!(split("localhost:5000/a"), ("localhost:5000/a", "<none>"));
    }
}
