//! What happened on this host, in the order it was written.
//!
//! `ROOT/events/events.jsonl` holds one JSON object a line, in docker's shape. Any berth process or shim appends with a
//! single `O_APPEND` write, so lines never interleave. A file past its bound is renamed to `events.jsonl.1`, over the
//! one before; writers hold the file's shared lock while they write and the one who renames holds it exclusively, so
//! no line goes into a file that has already been put aside. Followers sleep in inotify.

mod query;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock, inotify};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use query::{Filter, Query};

/// Rotation bound of the live file, in bytes.
const SIZE_MAX: u64 = 8 * 1024 * 1024;

/// What kind of object an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A named volume.
    Volume,
    /// A network.
    Network,
}

impl Kind {
    /// The word users filter by.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Volume => "volume",
            Kind::Network => "network",
        }
    }
}

/// The object an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Container id, image name, volume or network name.
    #[serde(rename = "ID")]
    pub id: String,
    /// `name`, `image`, `exitCode`, `signal`, labels…
    #[serde(rename = "Attributes", default)]
    pub attributes: BTreeMap<String, String>,
}

/// One line of the log, in the field names of docker's `/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What kind of object.
    #[serde(rename = "Type")]
    pub kind: Kind,
    /// `create`, `start`, `die`, `destroy`, `pull`, `mount`…
    #[serde(rename = "Action")]
    pub action: String,
    /// Which object.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`: there is one host.
    #[serde(default = "local")]
    pub scope: String,
    /// Seconds since the epoch.
    pub time: u64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub time_nano: u64,
}

fn local() -> String {
    "local".to_owned()
}

impl Event {
    /// An event that happens now.
    pub fn new(kind: Kind, action: &str, id: &str) -> Event {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Event {
            kind,
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes: BTreeMap::new(),
            },
            scope: local(),
            time: now.as_secs(),
            time_nano: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Adds an attribute.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Event {
        self.actor.attributes.insert(key.to_owned(), value.into());
        self
    }
}

/// Why the log could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log or its directory could not be opened.
    #[error("open event log {path}")]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A line could not be appended.
    #[error("write event log {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The log could not be read or watched.
    #[error("read event log {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A `--filter` berth does not know.
    #[error("unknown event filter {0:?}: use container, event, image, label, network, scope, type or volume")]
    Filter(String),
}

/// The log of one `ROOT`.
#[derive(Debug, Clone)]
pub struct Events {
    dir: PathBuf,
    size_max: u64,
}

impl Events {
    /// Names the log under `root`; nothing is opened yet.
    pub fn new(root: &Path) -> Events {
        Events {
            dir: root.join("events"),
            size_max: SIZE_MAX,
        }
    }

    fn live(&self) -> PathBuf {
        self.dir.join("events.jsonl")
    }

    fn rotated(&self) -> PathBuf {
        self.dir.join("events.jsonl.1")
    }

    /// Appends one event. Not synced: events tell what happened, state lives elsewhere.
    pub fn append(&self, event: &Event) -> Result<(), Error> {
        let path = self.live();
        let write_error = |source| Error::Write {
            path: path.clone(),
            source,
        };
        let mut line = serde_json::to_vec(event).map_err(|e| write_error(e.into()))?;
        line.push(b'\n');
        let mut file = self.open_locked()?;
        file.write_all(&line).map_err(write_error)?;
        let size = file.metadata().map_err(write_error)?.len();
        if size > self.size_max {
            self.rotate(&file);
        }
        Ok(())
    }

    /// The live file under its shared lock, proved to be the one the name leads to.
    fn open_locked(&self) -> Result<File, Error> {
        let path = self.live();
        let open_error = |source| Error::Open {
            path: path.clone(),
            source,
        };
        loop {
            let opened = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&path);
            let file = match opened {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(&self.dir)
                        .map_err(open_error)?;
                    continue;
                }
                other => other.map_err(open_error)?,
            };
            flock(&file, FlockOperation::LockShared).map_err(|e| open_error(e.into()))?;
            if same_file(&file, &path) {
                return Ok(file);
            }
        }
    }

    /// Puts a full file aside. Whoever cannot have the lock at once leaves it to the next writer.
    fn rotate(&self, file: &File) {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() && same_file(file, &self.live()) {
            // A failed rename costs nothing but a longer file; the next writer tries again.
            let _ = fs::rename(self.live(), self.rotated());
        }
    }

    /// Hands matching events to `sink`, oldest first, until the sink breaks or the query's end is reached.
    ///
    /// Without `query.until`, or with one still to come, it blocks and follows the log; without `query.since` only
    /// what happens from now on is shown, as docker does.
    pub fn stream(
        &self,
        query: &Query,
        mut sink: impl FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let path = self.live();
        let read_error = |source: io::Error| Error::Read {
            path: path.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(read_error)?;
        let follows = query.until.is_none_or(|until| until > SystemTime::now());
        // The watch comes before the first read: what is written in between wakes it.
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(|e| read_error(e.into()))?;
        inotify::add_watch(
            &watch,
            &self.dir,
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_FROM,
        )
        .map_err(|e| read_error(e.into()))?;

        let mut tail = Tail::default();
        if query.since.is_some() {
            if let Ok(old) = File::open(self.rotated()) {
                let mut old = Tail {
                    file: Some(BufReader::new(old)),
                    partial: Vec::new(),
                };
                if old.drain(query, &mut sink).map_err(read_error)?.is_break() {
                    return Ok(());
                }
            }
        } else {
            tail.skip_to_end(&path).map_err(read_error)?;
        }
        loop {
            if tail
                .advance(&path, query, &mut sink)
                .map_err(read_error)?
                .is_break()
                || !follows
            {
                return Ok(());
            }
            let left = match query.until.map(|until| until.duration_since(SystemTime::now())) {
                Some(Err(_)) => return Ok(()),
                Some(Ok(left)) => Some(left),
                None => None,
            };
            wait(&watch, left).map_err(read_error)?;
        }
    }
}

/// Sleeps until the directory changes or the time is up, and forgets what the kernel said about it.
fn wait(watch: &impl std::os::fd::AsFd, left: Option<Duration>) -> io::Result<()> {
    let timeout = left.map(|left| Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    });
    match poll(&mut [PollFd::new(watch, PollFlags::IN)], timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let mut buffer = [0_u8; 4096];
    while rustix::io::read(watch, &mut buffer).is_ok_and(|n| n > 0) {}
    Ok(())
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => a.ino() == b.ino() && a.dev() == b.dev(),
        _ => false,
    }
}

/// A reader that remembers where it is in the live file and carries on in the next one.
#[derive(Default)]
struct Tail {
    file: Option<BufReader<File>>,
    partial: Vec<u8>,
}

impl Tail {
    fn skip_to_end(&mut self, path: &Path) -> io::Result<()> {
        if let Ok(mut file) = File::open(path) {
            io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
            self.file = Some(BufReader::new(file));
        }
        Ok(())
    }

    fn advance(
        &mut self,
        path: &Path,
        query: &Query,
        sink: &mut impl FnMut(&Event) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        loop {
            // Asked before draining: when the file is no longer live, nothing is added after what is read now.
            let live = self
                .file
                .as_ref()
                .is_some_and(|file| same_file(file.get_ref(), path));
            if self.drain(query, sink)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if live {
                return Ok(ControlFlow::Continue(()));
            }
            match File::open(path) {
                Ok(file) => self.file = Some(BufReader::new(file)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ControlFlow::Continue(())),
                Err(e) => return Err(e),
            }
        }
    }

    fn drain(
        &mut self,
        query: &Query,
        sink: &mut impl FnMut(&Event) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let Some(file) = self.file.as_mut() else {
            return Ok(ControlFlow::Continue(()));
        };
        loop {
            // Bounded, so that a damaged file without line ends cannot fill memory.
            let n = file
                .by_ref()
                .take(SIZE_MAX)
                .read_until(b'\n', &mut self.partial)?;
            if n == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            if self.partial.last() != Some(&b'\n') {
                if self.partial.len() as u64 >= SIZE_MAX {
                    self.partial.clear();
                }
                continue;
            }
            // A torn line after a crash is skipped: it tells of nothing that state does not.
            if let Ok(event) = serde_json::from_slice::<Event>(&self.partial)
                && query.matches(&event)
                && sink(&event).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(events: &Events, query: &Query) -> Vec<String> {
        let mut seen = Vec::new();
        events
            .stream(query, |e| {
                seen.push(e.actor.id.clone());
                ControlFlow::Continue(())
            })
            .unwrap();
        seen
    }

    fn past() -> Query {
        Query {
            since: Some(UNIX_EPOCH),
            until: Some(SystemTime::now()),
            filters: Vec::new(),
        }
    }

    #[test]
    fn what_is_appended_is_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::new(dir.path());
        for id in ["a", "b", "c"] {
            events
                .append(&Event::new(Kind::Container, "start", id).with("name", id))
                .unwrap();
        }
        assert_eq!(collect(&events, &past()), ["a", "b", "c"]);
    }

    #[test]
    fn rotation_keeps_the_file_before() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events {
            size_max: 1000,
            ..Events::new(dir.path())
        };
        for i in 0..40 {
            events
                .append(&Event::new(Kind::Volume, "create", &format!("{i}")))
                .unwrap();
        }
        let seen = collect(&events, &past());
        assert_eq!(seen.last().map(String::as_str), Some("39"));
        assert!(seen.len() > 3 && seen.len() < 40, "{seen:?}");
        let first: usize = seen[0].parse().unwrap();
        let expected: Vec<String> = (first..40).map(|i| i.to_string()).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_torn_line_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::new(dir.path());
        events.append(&Event::new(Kind::Image, "pull", "a")).unwrap();
        let mut file = OpenOptions::new().append(true).open(events.live()).unwrap();
        file.write_all(b"{\"Type\":\"contai\n").unwrap();
        events.append(&Event::new(Kind::Image, "pull", "b")).unwrap();
        assert_eq!(collect(&events, &past()), ["a", "b"]);
    }

    #[test]
    fn a_follower_sees_what_comes_across_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events {
            size_max: 700,
            ..Events::new(dir.path())
        };
        events
            .append(&Event::new(Kind::Container, "start", "first"))
            .unwrap();
        let writer = events.clone();
        let query = Query {
            since: Some(UNIX_EPOCH),
            until: None,
            filters: Vec::new(),
        };
        let mut seen = Vec::new();
        let mut thread = None;
        events
            .stream(&query, |e| {
                if thread.is_none() {
                    let writer = writer.clone();
                    thread = Some(std::thread::spawn(move || {
                        for i in 0..10 {
                            writer
                                .append(&Event::new(Kind::Container, "start", &format!("{i}")))
                                .unwrap();
                            // Rotations closer together than a reader can wake lose the older file, by design.
                            std::thread::sleep(Duration::from_millis(20));
                        }
                    }));
                }
                seen.push(e.actor.id.clone());
                if e.actor.id == "9" {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        thread.unwrap().join().unwrap();
        assert_eq!(seen, ["first", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    }
}
