//! `berth images`.

use berth_images::{Image, Images};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::filter::{Filter, label_matches};
use crate::printer::{self, Rows};
use crate::{glob, switch};

#[derive(Debug, Args)]
pub struct List {
    /// Accepted for docker's sake: berth keeps no intermediate images
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// reference, label, dangling, before, since, until
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
    /// Only this repository or name, or those that fit this pattern
    repository: Option<String>,
}

pub fn run(args: List, context: &Context) -> Result<Exit> {
    let now = Timestamp::now();
    let images = context.images()?;
    let mut wanted = Wanted::new(&args.filter, &images)?;
    wanted.references.extend(args.repository.clone());
    let mut rows = Vec::new();
    for image in images.list()? {
        if !wanted.image(&image) {
            continue;
        }
        for name in names(&image) {
            if wanted.name(&name)? {
                rows.push(row(&image, &name, args.no_trunc, now));
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
            ("VirtualSize", "SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
            ("Containers", "CONTAINERS"),
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

/// One row's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// As docker shows it, or `<none>`.
    pub repository: String,
    /// `<none>` for an image known by digest alone.
    pub tag: String,
}

/// An image's rows: a name with a tag each, else the repositories it was pulled from by digest, else one of nothing.
pub fn names(image: &Image) -> Vec<Name> {
    let named = |repository: &str, tag: &str| Name {
        repository: repository.to_owned(),
        tag: tag.to_owned(),
    };
    let tagged: Vec<Name> = image
        .names
        .iter()
        .filter_map(|name| name.rsplit_once(':'))
        .map(|(repository, tag)| named(repository, tag))
        .collect();
    if !tagged.is_empty() {
        return tagged;
    }
    let mut pinned: Vec<Name> = image
        .repo_digests
        .iter()
        .filter_map(|name| name.split_once('@'))
        .map(|(repository, _)| named(repository, "<none>"))
        .collect();
    pinned.dedup();
    if pinned.is_empty() {
        pinned.push(named("<none>", "<none>"));
    }
    pinned
}

/// The filters, read once.
#[derive(Default)]
struct Wanted {
    /// One is enough.
    references: Vec<String>,
    labels: Vec<String>,
    dangling: Option<bool>,
    /// Made before and after.
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Wanted {
    fn new(filters: &[Filter], images: &Images) -> Result<Self> {
        let mut wanted = Self::default();
        let made =
            |name: &str| -> Result<Timestamp> { Ok(created(&images.resolve(name)?).unwrap_or_default()) };
        for Filter { key, value } in filters {
            match key.as_str() {
                "reference" => wanted.references.push(value.clone()),
                "label" => wanted.labels.push(value.clone()),
                "dangling" => wanted.dangling = Some(switch::parse(value).map_err(Failure::new)?),
                "before" => wanted.before = Some(made(value)?),
                "since" => wanted.since = Some(made(value)?),
                "until" => {
                    let until = printer::parse_point(value).map_err(Failure::new)?;
                    wanted.before = Some(Timestamp::try_from(until)?);
                }
                other => {
                    return Err(Failure::unsupported(
                        &format!("filter {other}"),
                        "use reference, label, dangling, before, since or until",
                    ));
                }
            }
        }
        Ok(wanted)
    }

    fn image(&self, image: &Image) -> bool {
        let label = |key: &str| image.config.config.labels.get(key).map(String::as_str);
        let made = created(image).unwrap_or_default();
        let is_dangling = image.names.is_empty() && image.repo_digests.is_empty();
        self.labels.iter().all(|wanted| label_matches(wanted, label))
            && self.dangling.is_none_or(|dangling| dangling == is_dangling)
            && self.before.is_none_or(|before| made < before)
            && self.since.is_none_or(|since| made > since)
    }

    fn name(&self, name: &Name) -> Result<bool> {
        if self.references.is_empty() {
            return Ok(true);
        }
        let whole = format!("{}:{}", name.repository, name.tag);
        for pattern in &self.references {
            let fits = |text: &str| {
                glob::fits(pattern, text).ok_or_else(|| {
                    Failure::new(format!("reference {pattern:?} is no pattern such as */name:1.*"))
                })
            };
            if fits(&whole)? || fits(&name.repository)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// When an image was made, if it says.
fn created(image: &Image) -> Option<Timestamp> {
    image.created.as_deref().and_then(|text| text.parse().ok())
}

/// The first twelve digits of an id.
fn short(id: &str) -> String {
    id.split(':')
        .next_back()
        .unwrap_or_default()
        .chars()
        .take(12)
        .collect()
}

/// The fields of an image in lists.
pub fn row(image: &Image, name: &Name, whole: bool, now: Timestamp) -> Value {
    let id = image.id.to_string();
    let created = created(image);
    let pinned = format!("{}@", name.repository);
    let digest = image
        .repo_digests
        .iter()
        .find_map(|known| known.strip_prefix(&pinned))
        .map_or_else(|| image.manifest_digest.to_string(), str::to_owned);
    json!({
        "Repository": name.repository,
        "Tag": name.tag,
        "Digest": digest,
        "ID": if whole { id } else { short(&id) },
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |then| printer::ago(then, now)),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), printer::stamp),
        "Size": printer::decimal(image.size),
        "VirtualSize": printer::decimal(image.size),
        // As docker's list: `berth system df --verbose` counts them.
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "Containers": "N/A",
    })
}
