//! `berth network`.

use clap::Args;
use std::net::Ipv4Addr;

use berth_engine::events::Kind;
use berth_engine::network::{Endpoint, Mac, NetworkOptions};
use serde_json::{Value, json};

use crate::container_args::pair_or_key;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::filter::{Filter, label_matches};
use crate::printer::{self, Rows};

#[derive(Debug, Args)]
pub struct Create {
    /// Driver
    #[arg(short, long)]
    driver: Option<String>,
    /// The host's address on the network
    #[arg(long)]
    gateway: Option<Ipv4Addr>,
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
    let bad = |text: &str| Failure::new(format!("--subnet: {text:?} is no network such as 10.9.0.0/24"));
    let options = NetworkOptions {
        name: args.name,
        subnet: args
            .subnet
            .map(|text| text.parse().map_err(|_| bad(&text)))
            .transpose()?,
        gateway: args.gateway,
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
    let network = context.networks()?.get(&args.network)?.name;
    let endpoint = Endpoint {
        network: network.clone(),
        ip: args.ip,
        mac: args.mac_address,
        aliases: args.alias,
    };
    engine.connect(&id, &endpoint)?;
    context.happened(Kind::Network, "connect", &network)?;
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub struct Disconnect {
    /// Network
    network: String,
    /// Container
    container: String,
}

pub fn disconnect(args: Disconnect, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let id = engine.find(&args.container)?;
    let network = context.networks()?.get(&args.network)?.name;
    engine.disconnect(&id, &network)?;
    context.happened(Kind::Network, "disconnect", &network)?;
    Ok(Exit::Success)
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
        describe(name, context)
    })
}

/// The two that are no bridges: name, driver, id.
const BUILT_IN: [(&str, &str, &str); 2] = [("host", "host", "c"), ("none", "null", "d")];

/// Ids are 64 hex digits; those of the networks that are everywhere the same are too.
fn built_in_id(digit: &str) -> String {
    digit.repeat(64)
}

/// A network in docker's shape.
pub fn describe(name: &str, context: &Context) -> Result<Value> {
    let built_in = |(known, _, digit): &&(&str, &str, &str)| name == *known || name == built_in_id(digit);
    if let Some((name, driver, digit)) = BUILT_IN.iter().find(built_in) {
        return Ok(json!({
            "Name": name, "Id": built_in_id(digit), "Created": "1970-01-01T00:00:00Z", "Scope": "local", "Driver": driver,
            "Internal": false, "Labels": {}, "Containers": {}, "IPAM": {"Driver": "default", "Config": []}, "Options": {},
        }));
    }
    let networks = context.networks()?;
    let network = networks.get(name)?;
    let containers: serde_json::Map<String, Value> = networks
        .containers(&network.name)?
        .into_iter()
        .map(|(id, ip)| {
            (
                id,
                json!({"IPv4Address": format!("{ip}/{}", network.subnet.prefix_len())}),
            )
        })
        .collect();
    Ok(json!({
        "Name": network.name, "Id": network.id, "Created": network.created, "Scope": "local", "Driver": network.driver,
        "Internal": network.internal, "Labels": network.labels, "Containers": containers,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": network.subnet, "Gateway": network.gateway}]},
        "Options": {"com.docker.network.bridge.name": network.bridge},
    }))
}

#[derive(Debug, Args)]
pub struct List {
    /// name, id, label, driver
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
    let mut networks = context.networks()?.list()?;
    // Below the default bridge, the first of the list; they are bridges to nothing, but have a row in docker's too.
    for (name, driver, digit) in BUILT_IN.iter().rev() {
        let mut network = networks[0].clone();
        network.name = (*name).into();
        network.driver = (*driver).into();
        network.id = built_in_id(digit);
        networks.insert(1, network);
    }
    'networks: for network in networks {
        for Filter { key, value } in &args.filter {
            let holds = match key.as_str() {
                "name" => network.name.contains(value.as_str()),
                "id" => network.id.starts_with(value.as_str()),
                "driver" => network.driver == *value,
                "label" => label_matches(value, |key| network.labels.get(key).map(String::as_str)),
                other => {
                    return Err(Failure::unsupported(
                        &format!("filter {other}"),
                        "use name, id, label or driver",
                    ));
                }
            };
            if !holds {
                continue 'networks;
            }
        }
        let short: String = network.id.chars().take(12).collect();
        rows.push(json!({
            "ID": if args.no_trunc { network.id } else { short }, "Name": network.name, "Driver": network.driver,
            "Scope": "local", "Internal": network.internal.to_string(), "CreatedAt": network.created,
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
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub fn prune(args: Prune, context: &Context) -> Result<Exit> {
    if !args.force && !super::confirmed("This removes networks no container is on.")? {
        return Ok(Exit::Success);
    }
    for name in context.networks()?.prune()? {
        context.happened(Kind::Network, "destroy", &name)?;
        printer::line(&name)?;
    }
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub struct Remove {
    /// Networks
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

pub fn remove(args: Remove, context: &Context) -> Result<Exit> {
    super::each(&args.names, |name| {
        context.networks()?.remove(name)?;
        context.happened(Kind::Network, "destroy", name)
    })
}
