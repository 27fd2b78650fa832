//! `berth logs`.

use clap::Args;
use std::io::{self, Write};

use berth_engine::{LogOptions, Stream};
use jiff::Timestamp;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::Result;
use crate::printer;

#[derive(Debug, Args)]
pub struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Nothing older than this
    #[arg(long)]
    since: Option<String>,
    /// Nothing newer than this
    #[arg(long)]
    until: Option<String>,
    /// Lines from the end, or all
    #[arg(short = 'n', long, default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Container
    container: String,
}

pub fn run(args: Logs, context: &Context) -> Result<Exit> {
    let engine = context.engine()?;
    let id = engine.find(&args.container)?;
    let options = LogOptions {
        follow: args.follow,
        since: point(args.since.as_deref())?,
        until: point(args.until.as_deref())?,
        tail: match args.tail.as_str() {
            "all" | "-1" => None,
            count => Some(
                count
                    .parse()
                    .map_err(|_| Failure::new(format!("--tail: {count:?} is neither a count nor all")))?,
            ),
        },
    };
    let written = engine.logs(&id, &options, &mut |entry| {
        let stamp = if args.timestamps {
            format!("{:.9} ", entry.time)
        } else {
            String::new()
        };
        match entry.stream {
            Stream::Stdout => printer::log(&mut io::stdout().lock(), &stamp, &entry.text),
            Stream::Stderr => printer::log(&mut io::stderr().lock(), &stamp, &entry.text),
        }
    });
    io::stdout().flush().ok();
    written?;
    Ok(Exit::Success)
}

fn point(text: Option<&str>) -> Result<Option<Timestamp>> {
    let Some(text) = text else { return Ok(None) };
    let at = printer::parse_point(text).map_err(Failure::new)?;
    Ok(Some(Timestamp::try_from(at)?))
}
