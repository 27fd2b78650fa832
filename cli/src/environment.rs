//! `-e` and `--env-file` of `run`, `create` and `exec`.

use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// Variables of files, then of flags, so that flags win. A name alone takes its value from here; not set here, a flag's is
/// passed on as it is, which takes the image's variable out, and a file's means nothing.
pub fn gather(files: &[PathBuf], flags: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        for line in read_lines(file)? {
            let place = || format!("in {}", file.display());
            // A value cannot stand there alone; on the command line the shell has parted the words.
            if name_of(&line).contains(char::is_whitespace) {
                return Err(bad_name(&line, &place()));
            }
            all.extend(from_host(&line, place)?);
        }
    }
    for flag in flags {
        all.push(from_host(flag, || "on the command line".to_owned())?.unwrap_or_else(|| flag.clone()));
    }
    Ok(all)
}

fn from_host(line: &str, place: impl Fn() -> String) -> Result<Option<String>> {
    if name_of(line).is_empty() {
        return Err(bad_name(line, &place()));
    }
    if line.contains('=') {
        return Ok(Some(line.to_owned()));
    }
    Ok(std::env::var(line).ok().map(|value| format!("{line}={value}")))
}

fn name_of(line: &str) -> &str {
    line.split('=').next().unwrap_or(line)
}

fn bad_name(line: &str, place: &str) -> Failure {
    let name = name_of(line);
    Failure::new(format!(
        "environment variable {line:?} {place}: bad name {name:?}"
    ))
    .with_hint("write NAME=VALUE")
    .with_exit(Exit::Berth)
}

/// Lines that are not empty and no comment.
pub fn read_lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(format!("read {}: {e}", path.display())).with_exit(Exit::Berth))?;
    let lines = text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}
