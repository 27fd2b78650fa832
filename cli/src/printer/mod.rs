//! The only place that writes to stdout. Data goes there; errors, hints and progress go to stderr.

mod format;
mod level;
mod ports;
mod size;
mod table;
mod time;

use std::io::{self, Write};

use serde_json::Value;

use crate::failure::{Failure, Result};

pub use format::{Rows, inspect};
pub use level::Level;
pub use ports::ports;
pub use size::{binary, decimal};
pub use time::{ago, parse_duration, parse_point, stamp, status};

/// Writes a line.
pub fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    done(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")))
}

/// Writes text as it is and passes it on at once.
pub fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    done(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Writes JSON, indented as docker's.
pub fn json(value: &Value) -> Result<()> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(value, &mut serializer)?;
    out.push(b'\n');
    raw(&out)
}

/// Rows of cells in columns.
pub fn columns<'a>(rows: impl Iterator<Item = &'a Vec<String>>) -> Result<()> {
    let lines: Vec<String> = rows
        .map(|cells| {
            cells
                .iter()
                .map(|cell| cell.replace('\t', " "))
                .collect::<Vec<_>>()
                .join("\t")
        })
        .collect();
    raw(table::layout(&lines).as_bytes())
}

/// A line of a container's log, as it is: logs are the container's own bytes, and the user asked for them.
pub fn log(out: &mut dyn Write, stamp: &str, text: &str) -> io::Result<()> {
    out.write_all(stamp.as_bytes())?;
    out.write_all(text.as_bytes())
}

/// A reader that went away (`berth ps | head`) ends the verb in silence.
fn done(result: io::Result<()>) -> Result<()> {
    result.map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(crate::exit::Exit::Success),
        _ => Failure::new(format!("write to standard output: {e}")),
    })
}

/// The error line. Its text may quote foreign names.
pub fn error(text: &str) {
    let _ = writeln!(io::stderr(), "berth: {}", harmless(text));
}

/// A hint under an error.
pub fn hint(text: &str) {
    let _ = writeln!(io::stderr(), "hint: {}", harmless(text));
}

/// Something the user should know that is no error, unless `--log-level` is above it.
pub fn warning(text: &str) {
    log::warn!("{text}");
}

/// A question or remark for a person, on stderr without a line end.
pub fn prompt(text: &str) {
    let _ = write!(io::stderr(), "{text}");
    let _ = io::stderr().flush();
}

/// Names and messages come from images and registries: control characters, which could move the cursor, retitle the
/// window or forge lines, are shown instead of obeyed. Bidirectional overrides too.
pub fn harmless(text: &str) -> String {
    let is_harmful = |c: char| {
        (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_harmful) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_shown_not_obeyed() {
        assert_eq!(harmless("web\u{1b}]0;owned\u{7}"), "web\\u{1b}]0;owned\\u{7}");
        assert_eq!(
            harmless("\u{202e}gpj.exe\r\u{9b}2J"),
            "\\u{202e}gpj.exe\\r\\u{9b}2J"
        );
        assert_eq!(harmless("plain ü 漢\n"), "plain ü 漢\n");
    }
}
