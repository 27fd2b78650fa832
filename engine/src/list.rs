//! `ps`.
use std::collections::BTreeMap;

use jiff::Timestamp;
use regex_lite::Regex;

use crate::container::{State, Status};
use crate::engine::Engine;
use crate::error::Result;
use crate::flags::{InvalidFlag, NetworkMode};
use crate::id::{ContainerId, ContainerName};
use crate::{ContainerConfig, OpenPort, network, ports, reconcile, record};

/// One `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // docker's words, and podman's
pub enum ListFilter {
    Id(String),
    Name(NamePattern),
    Label { key: String, value: Option<String> },
    Exited(i32),
    Status(Status),
    Ancestor(String),
    Before(String),
    Since(String),
    Volume(String),
    Network(String),
    Publish(u16),
    Expose(String),
    Health(String),
    ShouldStartOnBoot(bool),
}

impl std::str::FromStr for ListFilter {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: &str| InvalidFlag::new("filter", s, why);
        let (key, value) = s.split_once('=').ok_or_else(|| bad("expected key=value"))?;
        let owned = value.to_owned();
        Ok(match key {
            "id" => ListFilter::Id(owned),
            "name" => ListFilter::Name(NamePattern(
                Regex::new(value).map_err(|_| bad("the name is no regular expression"))?,
            )),
            "label" => match value.split_once('=') {
                Some((k, v)) => ListFilter::Label {
                    key: k.into(),
                    value: Some(v.into()),
                },
                None => ListFilter::Label {
                    key: owned,
                    value: None,
                },
            },
            "exited" => ListFilter::Exited(value.parse().map_err(|_| bad("expected an exit code"))?),
            "status" => ListFilter::Status(value.parse()?),
            "ancestor" => ListFilter::Ancestor(owned),
            "before" => ListFilter::Before(owned),
            "since" => ListFilter::Since(owned),
            "volume" => ListFilter::Volume(owned),
            "network" => ListFilter::Network(owned),
            "publish" => {
                let port = value.split('/').next().unwrap_or_default();
                ListFilter::Publish(port.parse().map_err(|_| bad("expected a port"))?)
            }
            "expose" => ListFilter::Expose(owned),
            "health" => ListFilter::Health(owned),
            "should-start-on-boot" => {
                ListFilter::ShouldStartOnBoot(value.parse().map_err(|_| bad("expected true or false"))?)
            }
            _ => return Err(bad("no such filter")),
        })
    }
}

/// A regular expression over names.
#[derive(Debug, Clone)]
pub struct NamePattern(Regex);

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for NamePattern {}

/// Which containers `ps` shows.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also those not running.
    pub all: bool,
    /// The newest so many, running or not.
    pub last: Option<usize>,
    /// Filters: of one key any must fit, of different keys all.
    pub filters: Vec<ListFilter>,
}

/// A row of `ps`.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Id.
    pub id: ContainerId,
    /// Name.
    pub name: ContainerName,
    /// Image as the user wrote it.
    pub image: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// When it was created.
    pub created: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub state: State,
    /// Published and exposed ports while it runs.
    pub ports: Vec<OpenPort>,
    /// What it was asked to be.
    pub config: ContainerConfig,
}

impl Summary {
    /// Names of its networks; `host`, `none` or `container:…` where it has none of its own.
    #[must_use]
    pub fn networks(&self) -> Vec<String> {
        match &self.config.host.network {
            NetworkMode::Bridge | NetworkMode::Named(_) => {
                let endpoints = self.config.endpoints().into_iter();
                endpoints.map(|endpoint| endpoint.network).collect()
            }
            other => vec![other.to_string()],
        }
    }
}

impl Engine {
    /// Containers, newest first. Puts right what a dead shim left behind, and the network's rules if somebody flushed them.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<Summary>> {
        let mut rows = Vec::new();
        for id in record::ids(&self.paths)? {
            let state = match reconcile::state(&self.paths, &id) {
                // Removed meanwhile.
                Err(crate::Error::NoSuchContainer(_)) => continue,
                other => other?,
            };
            let config = match record::config(&self.paths, &id) {
                Err(crate::Error::NoSuchContainer(_)) => continue,
                other => other?,
            };
            rows.push(Summary {
                id,
                name: config.name.clone(),
                image: config.image.name.clone(),
                command: config.args(),
                created: config.created,
                labels: config.labels.clone(),
                ports: ports::open(&config, &state),
                state,
                config,
            });
        }
        self.tidy_network(rows.iter().any(|row| row.state.status.needs_shim()))?;
        rows.sort_by_key(|row| std::cmp::Reverse(row.created));
        let moment = |text: &str| self.find(text).and_then(|id| self.config(&id)).map(|c| c.created);
        let mut filters = Vec::new();
        for filter in &options.filters {
            let bound = match filter {
                ListFilter::Before(text) | ListFilter::Since(text) => Some(moment(text)?),
                _ => None,
            };
            filters.push((filter, bound));
        }
        let by_status = options
            .filters
            .iter()
            .any(|f| matches!(f, ListFilter::Status(_) | ListFilter::Exited(_)));
        rows.retain(|row| {
            (options.all || options.last.is_some() || by_status || row.state.status.needs_shim())
                && fits(row, &filters)
        });
        if let Some(last) = options.last {
            rows.truncate(last);
        }
        Ok(rows)
    }

    /// Takes down what shims were killed before they could; puts the rules back that a firewall's reload took.
    fn tidy_network(&self, running: bool) -> Result<()> {
        let paths = reconcile::network_paths(&self.paths);
        let restored = if running { network::restore(&paths) } else { Ok(()) };
        restored
            .and_then(|()| network::settle_abandoned(&paths))
            .map_err(|source| crate::Error::TidyNetwork(Box::new(source)))
    }
}

fn fits(row: &Summary, filters: &[(&ListFilter, Option<Timestamp>)]) -> bool {
    filters.iter().all(|(filter, _)| {
        let kind = std::mem::discriminant(*filter);
        // Labels must all fit, as docker has it; of any other key one is enough.
        let alone = matches!(filter, ListFilter::Label { .. });
        if alone {
            return matches(row, filter, None);
        }
        filters
            .iter()
            .any(|(f, bound)| std::mem::discriminant(*f) == kind && matches(row, f, *bound))
    })
}

fn matches(row: &Summary, filter: &ListFilter, bound: Option<Timestamp>) -> bool {
    let host = &row.config.host;
    match filter {
        ListFilter::Id(id) => row.id.as_str().starts_with(id.as_str()),
        // docker's names begin with a slash, and people write patterns for either form.
        ListFilter::Name(NamePattern(pattern)) => {
            pattern.is_match(row.name.as_str()) || pattern.is_match(&format!("/{}", row.name))
        }
        ListFilter::Label { key, value } => row
            .labels
            .get(key)
            .is_some_and(|v| value.as_ref().is_none_or(|want| want == v)),
        ListFilter::Exited(code) => row.state.status == Status::Exited && row.state.exit_code == *code,
        ListFilter::Status(status) => row.state.status == *status,
        ListFilter::Ancestor(image) => {
            let id = row.config.image.id.trim_start_matches("sha256:");
            row.image == *image
                || row.image.strip_suffix(":latest") == Some(image)
                || image.strip_suffix(":latest") == Some(row.image.as_str())
                || (image.len() >= 4 && id.starts_with(image.trim_start_matches("sha256:")))
        }
        ListFilter::Before(_) => bound.is_some_and(|t| row.created < t),
        ListFilter::Since(_) => bound.is_some_and(|t| row.created > t),
        ListFilter::Volume(text) => host.mounts.iter().any(|m| {
            m.target.to_str() == Some(text)
                || matches!(&m.kind, crate::flags::MountKind::Volume { name: Some(n), .. } if n == text)
        }),
        ListFilter::Network(name) => row.networks().contains(name),
        ListFilter::Publish(port) => host
            .ports
            .iter()
            .any(|p| p.container_port == *port || p.host_port == *port),
        ListFilter::Expose(port) => row
            .config
            .exposed_ports
            .iter()
            .any(|p| p == port || p.split('/').next() == Some(port)),
        ListFilter::Health(want) => row
            .state
            .health
            .as_ref()
            .map_or(want == "none", |h| h.status == *want),
        ListFilter::ShouldStartOnBoot(wanted) => {
            let starts =
                row.state.status != Status::Created && host.restart.starts_on_boot(row.state.stopped_by_user);
            starts == *wanted
        }
    }
}
