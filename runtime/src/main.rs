//! `berth-runtime`: the command line that stands in for runc.
//!
//! `main` seals the program and reports; a file of [`commands`] per verb turns flags into one call of the library.

mod commands;
mod report;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Before anything else: the steps below may put this process where a container can see it (CVE-2019-5736).
    if let Err(e) = berth_sys::reexec::seal() {
        return report::Report::plain()
            .fatal(&format!("cannot run from a file no container can write: {e}"), 1);
    }
    let cli = commands::Cli::parse();
    let report = report::Report::new(&cli.global);
    match commands::run(cli, &report) {
        Ok(code) => code,
        Err(failure) => report.fatal(&failure.message, failure.code),
    }
}
