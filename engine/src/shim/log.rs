//! The container's log: a JSON object a line, `{"log":"…\n","stream":"stdout","time":"…"}`, as docker's json-file.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::config::LogConfig;
use crate::logs::Stream;

/// A line longer than this is split, as docker splits it.
const LINE_MAX: usize = 16 * 1024;

/// Writes lines as they become whole. Bounds both its memory and, with `max-size`, the disk (CVE-2020-8557).
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    config: LogConfig,
    file: Option<File>,
    size: u64,
    partial: [Vec<u8>; 2],
}

impl Log {
    /// Opens the log for appending.
    pub(crate) fn open(path: PathBuf, config: LogConfig) -> std::io::Result<Log> {
        let mut log = Log {
            path,
            config,
            file: None,
            size: 0,
            partial: [Vec::new(), Vec::new()],
        };
        if !config.disabled {
            log.reopen()?;
        }
        Ok(log)
    }

    fn reopen(&mut self) -> std::io::Result<()> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Takes what a stream wrote.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let mut out = String::new();
        let time = Timestamp::now();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let partial = &mut self.partial[usize::from(stream == Stream::Stderr)];
            if partial.is_empty() && piece.ends_with(b"\n") && piece.len() <= LINE_MAX {
                encode(&mut out, stream, piece, time);
                continue;
            }
            let mut rest = piece;
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(rest.len().min(LINE_MAX - partial.len()));
                partial.extend_from_slice(head);
                rest = tail;
                if partial.len() == LINE_MAX || partial.ends_with(b"\n") {
                    encode(&mut out, stream, partial, time);
                    partial.clear();
                }
            }
        }
        self.append(&out)
    }

    /// Writes what had no newline yet; the stream has ended.
    pub(crate) fn finish(&mut self) -> std::io::Result<()> {
        let mut out = String::new();
        for (stream, partial) in [Stream::Stdout, Stream::Stderr]
            .into_iter()
            .zip(&mut self.partial)
        {
            if !partial.is_empty() {
                encode(&mut out, stream, partial, Timestamp::now());
                *partial = Vec::new();
            }
        }
        self.append(&out)
    }

    fn append(&mut self, text: &str) -> std::io::Result<()> {
        // Line by line only when a rotation may fall between two.
        let limit = self.config.max_size.map_or(u64::MAX, |s| s.0);
        let mut rest = text;
        while !rest.is_empty() {
            let take = if self.size + rest.len() as u64 <= limit {
                rest.len()
            } else {
                rest.find('\n').map_or(rest.len(), |i| i + 1)
            };
            let (now, later) = rest.split_at(take);
            if self.size > 0 && self.size + now.len() as u64 > limit {
                self.rotate()?;
            }
            if let Some(file) = &mut self.file {
                file.write_all(now.as_bytes())?;
                self.size += now.len() as u64;
            }
            rest = later;
        }
        Ok(())
    }

    /// `.1` is the newest of the old ones; `max-file` counts the one being written.
    fn rotate(&mut self) -> std::io::Result<()> {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        let old = self.config.max_file.saturating_sub(1);
        if old == 0 {
            std::fs::remove_file(&self.path)?;
        } else {
            for n in (1..old).rev() {
                match std::fs::rename(numbered(n), numbered(n + 1)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            std::fs::rename(&self.path, numbered(1))?;
        }
        self.reopen()
    }
}

fn encode(out: &mut String, stream: Stream, bytes: &[u8], time: Timestamp) {
    out.push_str("{\"log\":\"");
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // The two line separators end a line for some readers of JSON lines.
            c if c < ' ' || matches!(c, '\u{2028}' | '\u{2029}' | '\u{7f}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    let stream = if stream == Stream::Stdout {
        "stdout"
    } else {
        "stderr"
    };
    let _ = writeln!(out, "\",\"stream\":\"{stream}\",\"time\":\"{time:.9}\"}}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(path: &std::path::Path) -> Vec<(String, String)> {
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                let v: serde_json::Value = serde_json::from_str(line).unwrap();
                v["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
                (
                    v["stream"].as_str().unwrap().to_owned(),
                    v["log"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }

    #[test]
    fn rotation_keeps_so_many_files_and_loses_no_line_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let config = LogConfig {
            max_size: Some(crate::flags::MemorySize(300)),
            max_file: 3,
            disabled: false,
        };
        let mut log = Log::open(path.clone(), config).unwrap();
        for n in 0..20 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes())
                .unwrap();
        }
        let mut all = Vec::new();
        for file in [".2", ".1", ""] {
            let file = PathBuf::from(format!("{}{file}", path.display()));
            assert!(std::fs::metadata(&file).unwrap().len() <= 300);
            all.extend(read(&file).into_iter().map(|l| l.1));
        }
        assert!(!PathBuf::from(format!("{}.3", path.display())).exists());
        assert_eq!(all.last().unwrap(), "line 19\n");
        let want: Vec<String> = (20 - all.len()..20).map(|n| format!("line {n}\n")).collect();
        assert_eq!(all, want);
    }

    #[test]
    fn a_line_without_end_is_split_and_memory_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(path.clone(), LogConfig::default()).unwrap();
        for _ in 0..10 {
            log.write(Stream::Stderr, &[b'x'; 10_000]).unwrap();
        }
        assert!(log.partial[1].capacity() <= 2 * LINE_MAX);
        log.finish().unwrap();
        let lines = read(&path);
        assert_eq!(lines.iter().map(|l| l.1.len()).sum::<usize>(), 100_000);
        assert!(lines.iter().all(|l| l.1.len() <= LINE_MAX && l.0 == "stderr"));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(chunks in proptest::collection::vec("[a-z\"\\\\\n\r\t\u{1}\u{2028}é]{0,30}", 0..8)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut log = Log::open(path.clone(), LogConfig::default()).unwrap();
            for chunk in &chunks {
                log.write(Stream::Stdout, chunk.as_bytes()).unwrap();
            }
            log.finish().unwrap();
            let text: String = read(&path).into_iter().map(|l| l.1).collect();
            prop_assert_eq!(text, chunks.concat());
        }
    }
}
