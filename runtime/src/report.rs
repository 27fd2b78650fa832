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
        let line = self.line(message);
        if let Some(path) = &self.log {
            let opened = OpenOptions::new().append(true).create(true).open(path);
            if let Ok(mut file) = opened {
                // The message is on stderr too; a full disk must not hide the exit code.
                let _ = file.write_all(line.as_bytes());
            }
        }
        let _ = writeln!(std::io::stderr(), "berth-runtime: {message}");
        ExitCode::from(code)
    }

    fn line(&self, message: &str) -> String {
        let time = jiff::Timestamp::now()
            .round(jiff::Unit::Second)
            .unwrap_or_default()
            .to_string();
        match self.format {
            LogFormat::Json => {
                format!(
                    "{}\n",
                    serde_json::json!({"level": "error", "msg": message, "time": time})
                )
            }
            LogFormat::Text => format!("time={time:?} level=error msg={message:?}\n"),
        }
    }
}
