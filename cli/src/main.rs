//! The `berth` command line.
//!
//! ```text
//! argv ─ cli ─► verb ─► commands::<verb>::run ─► one engine or images call ─► printer
//! ```
//!
//! Exit codes are docker's: the container's own, 125 when berth failed, 126 and 127 when the command could not be
//! run, 128+n for signal n.
// Doc comments of flags are their help texts, written for terminals: brackets there are docker's syntax, not links.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

mod cli;
mod commands;
mod config;
mod container_args;
mod context;
mod environment;
mod exit;
mod failure;
mod filter;
mod glob;
mod output;
mod printer;
mod progress;
mod switch;
mod template;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    match cli::run(&args) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report().into(),
    }
}
