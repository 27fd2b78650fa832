//! `--log-level`: how much is told on standard error beside errors.

use std::io::Write as _;
use std::str::FromStr;

use super::harmless;

/// docker's levels. Errors are told at each of them: they are why a verb fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Steps and requests, too.
    Debug,
    /// Warnings; the default.
    Info,
    /// As `info`.
    Warn,
    /// No warnings.
    Error,
    /// As `error`.
    Fatal,
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        Ok(match text {
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            "fatal" => Level::Fatal,
            _ => return Err("expected debug, info, warn, error or fatal".to_owned()),
        })
    }
}

impl Level {
    /// From here on this much is told.
    pub fn take_effect(self) {
        // Nobody else sets a logger in this process.
        let _ = log::set_logger(&Stderr);
        log::set_max_level(match self {
            Level::Debug => log::LevelFilter::Debug,
            Level::Info | Level::Warn => log::LevelFilter::Warn,
            Level::Error | Level::Fatal => log::LevelFilter::Error,
        });
    }
}

/// Records of berth's crates on standard error. Those of the libraries below are not ours to tell.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("berth")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let kind = match record.level() {
                log::Level::Error | log::Level::Warn => "WARNING",
                log::Level::Info | log::Level::Debug | log::Level::Trace => "debug",
            };
            let text = record.args().to_string();
            let _ = writeln!(std::io::stderr(), "{kind}: {}", harmless(&text));
        }
    }

    fn flush(&self) {}
}
