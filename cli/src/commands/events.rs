//! `berth events`.

use clap::Args;
use std::ops::ControlFlow;
use std::time::SystemTime;

use berth_engine::events::{Event, Filter, Query};
use jiff::Timestamp;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Result;
use crate::printer;
use crate::template::Template;

#[derive(Debug, Args)]
pub struct Stream {
    /// Show what happened since
    #[arg(long, value_parser = printer::parse_point)]
    since: Option<SystemTime>,
    /// Stop there
    #[arg(long, value_parser = printer::parse_point)]
    until: Option<SystemTime>,
    /// Only those that fit
    #[arg(short, long = "filter")]
    filter: Vec<Filter>,
    /// json or a Go template
    #[arg(long)]
    format: Option<String>,
}

pub fn run(args: Stream, context: &Context) -> Result<Exit> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let as_json = args.format.as_deref() == Some("json");
    let query = Query {
        since: args.since,
        until: args.until,
        filters: args.filter,
    };
    let mut failed = None;
    context.events().stream(&query, |event| {
        let shown = (|| {
            let text = match &template {
                Some(template) => template.render(&serde_json::to_value(event)?)?,
                None if as_json => serde_json::to_string(event)?,
                None => sentence(event),
            };
            printer::line(&printer::harmless(&text))
        })();
        match shown {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(Exit::Success), Err)
}

fn sentence(event: &Event) -> String {
    let nanos = i128::from(event.time_nano);
    let time = Timestamp::from_nanosecond(nanos)
        .map_or_else(|_| event.time_nano.to_string(), |at| format!("{at:.9}"));
    let attributes: Vec<String> = event
        .actor
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let (kind, action, id) = (event.kind.as_str(), &event.action, &event.actor.id);
    format!("{time} {kind} {action} {id} ({})", attributes.join(", "))
}
