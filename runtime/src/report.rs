//! Where errors go: stderr, and the `--log` file in the form engines parse.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::commands::{Global, LogFormat};

/// Writes the one message a failed command leaves.
pub struct Report {
    log: Option<PathBuf>,
    format: LogFormat,
}

impl Report {
    /// Stderr alone.
    pub fn plain() -> Self {
        Self {
            log: None,
            format: LogFormat::Text,
        }
    }

    /// As the global flags say.
    pub fn new(global: &Global) -> Self {
        Self {
            log: global.log.clone(),
            format: global.log_format,
        }
    }

    /// Writes `message` and gives the exit code back.
    pub fn fatal(&self, message: &str, code: u8) -> ExitCode {
        // The message is on stderr too; a full disk must not hide the exit code.
        let _ = self.log("error", message);
        self.tell("error", "", message);
        ExitCode::from(code)
    }

    /// Passes warnings on: to the log if there is one, or to stderr.
    pub fn warn(&self, messages: &[String]) {
        for message in messages {
            if !self.log("warning", message) {
                self.tell("warning", "warning: ", message);
            }
        }
    }

    /// On stderr, for people; where there is no log file, in the form asked for.
    fn tell(&self, level: &str, kind: &str, message: &str) {
        let line = match (&self.log, self.format) {
            (None, LogFormat::Json) => self.line(level, message),
            _ => format!("berth-runtime: {kind}{message}\n"),
        };
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    /// Whether the log took it.
    fn log(&self, level: &str, message: &str) -> bool {
        let Some(path) = &self.log else { return false };
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened.is_ok_and(|mut file| file.write_all(self.line(level, message).as_bytes()).is_ok())
    }

    fn line(&self, level: &str, message: &str) -> String {
        let time = jiff::Timestamp::now()
            .round(jiff::Unit::Second)
            .unwrap_or_default()
            .to_string();
        match self.format {
            LogFormat::Json => {
                format!(
                    "{}\n",
                    serde_json::json!({"level": level, "msg": message, "time": time})
                )
            }
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}\n"),
        }
    }
}
