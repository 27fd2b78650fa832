//! `logs`: reads what the shim wrote, rotated files first, and with `--follow` what it writes.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::id::ContainerId;

/// Which of a process's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When it was written.
    pub time: Timestamp,
    /// Where.
    pub stream: Stream,
    /// The text, with the newline if there was one.
    pub text: String,
}

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Nothing newer.
    pub until: Option<Timestamp>,
    /// Only the last so many lines.
    pub tail: Option<u64>,
}

/// The longest line taken from a file; the shim writes none longer.
const LINE_MAX: u64 = 256 * 1024;

#[derive(Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: Timestamp,
}

fn parse(line: &[u8]) -> Option<LogEntry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let stream = if line.stream == "stderr" {
        Stream::Stderr
    } else {
        Stream::Stdout
    };
    Some(LogEntry {
        time: line.time,
        stream,
        text: line.log,
    })
}

/// One whole line, or none: a line without its newline is still being written and stays for the next call.
fn next_line(reader: &mut BufReader<File>, partial: &mut Vec<u8>) -> std::io::Result<Option<Vec<u8>>> {
    reader.by_ref().take(LINE_MAX).read_until(b'\n', partial)?;
    if partial.ends_with(b"\n") || partial.len() as u64 >= LINE_MAX {
        return Ok(Some(std::mem::take(partial)));
    }
    Ok(None)
}

impl Engine {
    /// Feeds the log to `sink`, oldest first, until its end (or with `follow` the container's, or `until`) or an error of the sink.
    pub fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        sink: &mut dyn FnMut(&LogEntry) -> std::io::Result<()>,
    ) -> Result<()> {
        let config = self.config(id)?;
        if config.host.log.disabled {
            return Err(Error::Unsupported {
                what: "logs".into(),
                why: "the container's log driver is none".into(),
            });
        }
        let path = self.paths.log(id);
        let mut reader = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound && !options.follow => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            other => Some(BufReader::new(other.at("open", &path)?)),
        };
        let fits = |e: &LogEntry| {
            options.since.is_none_or(|t| e.time >= t) && options.until.is_none_or(|t| e.time <= t)
        };
        let mut last = std::collections::VecDeque::new();
        let mut partial = Vec::new();
        let mut give = |entry: LogEntry| -> Result<()> {
            match options.tail {
                Some(n) => {
                    last.push_back(entry);
                    if last.len() as u64 > n {
                        last.pop_front();
                    }
                    Ok(())
                }
                None => sink(&entry).at("write", "the log"),
            }
        };
        for old in (1..config.host.log.max_file).rev() {
            let file = PathBuf::from(format!("{}.{old}", path.display()));
            let mut old = match File::open(&file) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                other => BufReader::new(other.at("open", &file)?),
            };
            while let Some(line) = next_line(&mut old, &mut partial).at("read", &file)? {
                parse(&line).filter(fits).map_or(Ok(()), &mut give)?;
            }
        }
        if let Some(reader) = &mut reader {
            while let Some(line) = next_line(reader, &mut partial).at("read", &path)? {
                parse(&line).filter(fits).map_or(Ok(()), &mut give)?;
            }
        }
        for entry in last {
            sink(&entry).at("write", "the log")?;
        }
        if options.follow {
            self.follow(id, reader, partial, options.until, &fits, sink)
        } else {
            Ok(())
        }
    }

    fn follow(
        &self,
        id: &ContainerId,
        mut reader: Option<BufReader<File>>,
        mut partial: Vec<u8>,
        until: Option<Timestamp>,
        fits: &dyn Fn(&LogEntry) -> bool,
        sink: &mut dyn FnMut(&LogEntry) -> std::io::Result<()>,
    ) -> Result<()> {
        let path = self.paths.log(id);
        let watch = rustix::fs::inotify::init(
            rustix::fs::inotify::CreateFlags::CLOEXEC | rustix::fs::inotify::CreateFlags::NONBLOCK,
        )
        .at("watch", &path)?;
        // The directory: rotation makes new files in it, and the record of the end is renamed into it.
        let dir = self.paths.container(id);
        let events = rustix::fs::inotify::WatchFlags::MODIFY
            | rustix::fs::inotify::WatchFlags::CREATE
            | rustix::fs::inotify::WatchFlags::MOVED_TO
            | rustix::fs::inotify::WatchFlags::DELETE_SELF;
        rustix::fs::inotify::add_watch(&watch, &dir, events).at("watch", &dir)?;
        loop {
            // Asked before the read: what was written before the end is read after it.
            let left = until.map(|until| Timestamp::now().duration_until(until));
            let ended = left.is_some_and(|left| !left.is_positive())
                || !self.state(id).is_ok_and(|s| s.status.needs_shim());
            loop {
                if let Some(open) = &mut reader {
                    while let Some(line) = next_line(open, &mut partial).at("read", &path)? {
                        if let Some(entry) = parse(&line).filter(fits) {
                            sink(&entry).at("write", "the log")?;
                        }
                    }
                }
                // After a rotation the name leads to another file; the old one has been read to its end.
                let named = std::fs::metadata(&path).map(|m| m.ino()).ok();
                let open = reader
                    .as_ref()
                    .and_then(|r| r.get_ref().metadata().ok())
                    .map(|m| m.ino());
                if named == open || named.is_none() {
                    break;
                }
                reader = Some(BufReader::new(File::open(&path).at("open", &path)?));
            }
            if ended {
                return Ok(());
            }
            // A shim that was killed writes nothing: look at the lock now and then.
            let glance = Duration::from_secs(2);
            let left = left.and_then(|left| Duration::try_from(left).ok());
            let wait = left.map_or(glance, |left| left.min(glance));
            let wait = rustix::event::Timespec::try_from(wait).expect("two seconds fit");
            let _ = rustix::event::poll(
                &mut [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)],
                Some(&wait),
            );
            let mut drain = [0u8; 4096];
            while rustix::io::read(&watch, &mut drain).is_ok_and(|n| n > 0) {}
        }
    }
}
