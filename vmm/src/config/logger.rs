//! What the monitor says of itself, and where.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

/// Changes to the log; what is not given stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logger {
    /// A file or a named pipe. Until there is one, standard error.
    pub log_path: Option<PathBuf>,
    /// The least severe of what is written.
    #[serde(default, deserialize_with = "any_case")]
    pub level: Option<Level>,
    /// Whether each line names its level.
    pub show_level: Option<bool>,
    /// Whether each line names the place in the source.
    pub show_log_origin: Option<bool>,
    /// Only lines of this module.
    pub module: Option<String>,
}

/// How severe a line of the log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Level {
    /// Nothing is written.
    Off,
    /// What failed.
    Error,
    /// What should be seen to.
    #[serde(rename = "Warning")]
    Warn,
    /// What happened.
    #[default]
    Info,
    /// For those who look for a fault.
    Debug,
    /// Everything.
    Trace,
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Ok(Level::Off),
            "error" => Ok(Level::Error),
            "warn" | "warning" => Ok(Level::Warn),
            "info" => Ok(Level::Info),
            "debug" => Ok(Level::Debug),
            "trace" => Ok(Level::Trace),
            _ => Err(format!(
                "unknown level {text:?}: one of Off, Error, Warning, Info, Debug, Trace"
            )),
        }
    }
}

fn any_case<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Level>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_in_any_case() {
        let logger: Logger = serde_json::from_str(r#"{"level": "wARNing"}"#).unwrap();
        assert_eq!(logger.level, Some(Level::Warn));
        assert!(serde_json::from_str::<Logger>(r#"{"level": "loud"}"#).is_err());
        assert_eq!(serde_json::from_str::<Logger>("{}").unwrap(), Logger::default());
    }
}
