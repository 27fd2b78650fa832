//! `berth network`.

use clap::Args;
use std::net::Ipv4Addr;

use berth_engine::Error;
use berth_engine::events::Kind;
use berth_engine::network::{self, Endpoint, Mac, Network, NetworkOptions};
use serde_json::json;

use crate::container_args::pair_or_key;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::filter::{Filter, PruneFilter, label_matches};
use crate::printer::{self, Rows};
use crate::switch;

#[derive(Debug, Args)]
pub struct Create {
    /// Driver
    #[arg(short, long)]
    driver: Option<String>,
    /// The host's address on the network
    #[arg(long)]
    gateway: Option<Ipv4Addr>,
    /// The part of the subnet that addresses are handed out of
    #[arg(long)]
    ip_range: Option<String>,
    /// No way out of the network
    #[arg(long)]
    internal: bool,
    /// Label
    #[arg(long)]
    label: Vec<String>,
    /// Addresses, such as 10.9.0.0/24
    #[arg(long)]
    subnet: Option<String>,
    /// Name
    name: String,
}

pub fn create(args: Create, context: &Context) -> Result<Exit> {
    let net = |flag: &str, text: Option<String>| {
        let bad = |text: &str| Failure::new(format!("{flag}: {text:?} is no network such as 10.9.0.0/24"));
        text.map(|text| text.parse().map_err(|_| bad(&text))).transpose()
    };
    let options = NetworkOptions {
        name: args.name,
        subnet: net("--subnet", args.subnet)?,
        gateway: args.gateway,
        ip_range: net("--ip-range", args.ip_range)?,
        internal: args.internal,
        driver: args.driver,
        labels: args.label.iter().map(|text| pair_or_key(text)).collect(),
    };
    let network = context.networks()?.create(&options)?;
    context.happened(Kind::Network, "create", &network.name)?;
    printer::line(&network.id)?;
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub struct Connect {
    /// Another name on the network
    #[arg(long)]
    alias: Vec<String>,
    /// Address
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// Ethernet address
    #[arg(long)]
    mac_address: Option<Mac>,
    /// Network
    network: String,
    /// Container
    container: String,
}

pub fn connect(args: Connect, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let id = engine.find(&args.container)?;
    let network = joinable(&args.network, context)?;
    let endpoint = Endpoint {
        network: network.clone(),
        ip: args.ip,
        mac: args.mac_address,
        aliases: args.alias,
    };
    engine.connect(&id, &endpoint)?;
    context.of_container(Kind::Network, "connect", &network, id.as_str())?;
    Ok(Exit::Success)
}

/// The name of a network that is one to join.
fn joinable(asked: &str, context: &Context) -> Result<String> {
    if matches!(asked, "host" | "none") {
        return Err(Failure::new(format!(
            "no container is connected to network {asked}, or taken off it"
        ))
        .with_hint(format!(
            "a container is created with it: `berth run --network {asked}`"
        )));
    }
    Ok(context.networks()?.get(asked)?.name)
}

#[derive(Debug, Args)]
pub struct Disconnect {
    /// A container that is not there, or not on the network, is fine
    #[arg(short, long)]
    force: bool,
    /// Network
    network: String,
    /// Container
    container: String,
}

pub fn disconnect(args: Disconnect, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let network = joinable(&args.network, context)?;
    let left = engine
        .find(&args.container)
        .and_then(|id| engine.disconnect(&id, &network).map(|()| id));
    match left {
        Ok(id) => context.of_container(Kind::Network, "disconnect", &network, id.as_str())?,
        Err(error) if args.force && is_off(&error) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Success)
}

/// Whether there was nothing to take off the network.
fn is_off(error: &Error) -> bool {
    match error {
        Error::NoSuchContainer(_) => true,
        Error::Network { source, .. } => matches!(**source, network::Error::NotAttached { .. }),
        _ => false,
    }
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// json or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Networks
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

pub fn inspect(args: Inspect, context: &Context) -> Result<Exit> {
    super::inspect::all(&args.names, args.format.as_deref(), |name| {
        Ok(context.networks()?.inspect(name)?)
    })
}

#[derive(Debug, Args)]
pub struct List {
    /// name, id, label, driver, scope, type, dangling
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
}

pub fn list(args: List, context: &Context) -> Result<Exit> {
    let mut rows = Vec::new();
    'networks: for network in context.networks()?.listed()? {
        for Filter { key, value } in &args.filter {
            let holds = match key.as_str() {
                "name" => network.name().contains(value.as_str()),
                "id" => network.id().starts_with(value.as_str()),
                "driver" => network.driver() == *value,
                "label" => label_matches(value, |key| network.label(key)),
                "scope" => value == "local",
                "type" => match value.as_str() {
                    "custom" => !network.is_predefined(),
                    "builtin" => network.is_predefined(),
                    _ => {
                        return Err(Failure::new(format!(
                            "filter type={value}: expected custom or builtin"
                        )));
                    }
                },
                "dangling" => {
                    let dangling = switch::parse(value).map_err(Failure::new)?;
                    let idle = !network.is_predefined()
                        && context.networks()?.containers(network.name())?.is_empty();
                    dangling == idle
                }
                other => {
                    return Err(Failure::unsupported(
                        &format!("filter {other}"),
                        "use name, id, label, driver, scope, type or dangling",
                    ));
                }
            };
            if !holds {
                continue 'networks;
            }
        }
        let mut id = network.id();
        if !args.no_trunc {
            id.truncate(12);
        }
        rows.push(json!({
            "ID": id, "Name": network.name(), "Driver": network.driver(), "Scope": "local",
            "Internal": network.internal().to_string(), "CreatedAt": network.created().parse().map_or_else(|_| String::new(), printer::stamp),
        }));
    }
    let rows = Rows {
        headings: &[
            ("ID", "NETWORK ID"),
            ("Name", "NAME"),
            ("Driver", "DRIVER"),
            ("Scope", "SCOPE"),
            ("Internal", "INTERNAL"),
            ("CreatedAt", "CREATED AT"),
        ],
        table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
        quiet: Some("{{.ID}}"),
        rows,
    };
    rows.print(args.format.as_deref(), args.quiet)?;
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub struct Prune {
    /// until, label, label!
    #[arg(long = "filter")]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub fn prune(args: Prune, context: &Context) -> Result<Exit> {
    let filter = PruneFilter::new(&args.filter, true)?;
    if !args.force && !super::confirmed("This removes networks no container is on.")? {
        return Ok(Exit::Success);
    }
    unused(&filter, context)?;
    Ok(Exit::Success)
}

/// Removes networks no container is on and tells them.
pub fn unused(filter: &PruneFilter, context: &Context) -> Result<()> {
    let wanted = |network: &Network| {
        let created = network.created.parse().ok();
        filter.fits(created, |key| network.labels.get(key).map(String::as_str))
    };
    let names = context.networks()?.prune(&wanted)?;
    for name in &names {
        context.happened(Kind::Network, "destroy", name)?;
    }
    super::deleted("Networks", names.into_iter())
}

#[derive(Debug, Args)]
pub struct Remove {
    /// One that is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// Networks
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

pub fn remove(args: Remove, context: &Context) -> Result<Exit> {
    super::each(&args.names, |name| match context.networks()?.remove(name) {
        Err(network::Error::NotFound(_)) if args.force => Ok(()),
        removed => {
            removed?;
            context.happened(Kind::Network, "destroy", name)
        }
    })
}
