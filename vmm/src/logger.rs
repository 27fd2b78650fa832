//! The log: lines of what the monitor does, to a file or a named pipe, once it is asked for.
//!
//! ```text
//! 2026-01-02T03:04:05.123456789 [id:thread:LEVEL:src/file.rs:12] message        level and place when asked for; in UTC
//! ```
//!
//! A reader that does not keep up loses lines, which are counted; the guest does not wait for it. Text from clients and guests
//! goes in escaped: a line is always one line.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{LevelFilter, Metadata, Record};
use rustix::fs::{Mode, OFlags};

use crate::config::{Level, Logger};
use crate::error::{Error, Result};
use crate::metrics::Counter;

/// Lines are cut there: what a pipe takes in one piece (`PIPE_BUF`, pipe(7)).
const LINE_MAX: usize = 4096;

/// Lines that could not be written.
pub(crate) static MISSED: Counter = Counter::new();

static LOG: Log = Log(Mutex::new(State {
    id: String::new(),
    asked: false,
    output: None,
    level: false,
    origin: false,
    module: None,
}));

struct Log(Mutex<State>);

struct State {
    id: String,
    asked: bool,
    /// Standard error while there is none.
    output: Option<File>,
    level: bool,
    origin: bool,
    module: Option<String>,
}

/// Names the microVM in each line. Nothing is written before the first [`update`].
pub fn start(id: &str) {
    id.clone_into(&mut LOG.state().id);
    // Fails when this process has a log already: that one stays.
    let _ = log::set_logger(&LOG);
}

/// Takes new settings; what they do not name stays as it is.
///
/// # Errors
///
/// [`Error::File`] when the file cannot be opened; then nothing changes.
pub fn update(settings: &Logger) -> Result<()> {
    let output = settings.log_path.as_deref().map(open_output).transpose()?;
    let mut state = LOG.state();
    if let Some(output) = output {
        state.output = Some(output);
    }
    state.level = settings.show_level.unwrap_or(state.level);
    state.origin = settings.show_log_origin.unwrap_or(state.origin);
    if let Some(module) = &settings.module {
        state.module = Some(module.clone());
    }
    if let Some(level) = settings.level.or((!state.asked).then(Level::default)) {
        log::set_max_level(match level {
            Level::Off => LevelFilter::Off,
            Level::Error => LevelFilter::Error,
            Level::Warn => LevelFilter::Warn,
            Level::Info => LevelFilter::Info,
            Level::Debug => LevelFilter::Debug,
            Level::Trace => LevelFilter::Trace,
        });
    }
    state.asked = true;
    Ok(())
}

/// What lines go to, if it is not standard error.
pub(crate) fn descriptor() -> Option<RawFd> {
    LOG.state().output.as_ref().map(AsRawFd::as_raw_fd)
}

/// Opens a file or a named pipe to write lines to, and makes the file if there is none. Never waits for a reader, not now and
/// not later.
pub(crate) fn open_output(path: &Path) -> Result<File> {
    // Readable too: a pipe that nobody reads yet cannot be opened for writing alone without waiting (fifo(7)).
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags | OFlags::NOCTTY, Mode::RUSR | Mode::WUSR);
    file.map(File::from).map_err(|e| Error::File {
        operation: "open",
        path: path.into(),
        source: e.into(),
    })
}

impl Log {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wants(&self, module: Option<&str>) -> bool {
        self.module
            .as_deref()
            .is_none_or(|wanted| module.unwrap_or_default().starts_with(wanted))
    }

    fn line(&self, record: &Record<'_>) -> String {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.9f");
        let thread = std::thread::current();
        let mut line = format!("{now} [{}:{}", self.id, thread.name().unwrap_or("-"));
        if self.level {
            line.push(':');
            line.push_str(record.level().as_str());
        }
        if self.origin {
            line.push(':');
            line.push_str(record.file().unwrap_or("unknown"));
            line.push(':');
            line.push_str(&record.line().unwrap_or(0).to_string());
        }
        line.push_str("] ");
        line.push_str(&record.args().to_string());
        line.truncate(line.floor_char_boundary(LINE_MAX - 1));
        line.push('\n');
        line
    }
}

impl log::Log for Log {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // What it logs is what guests send it, as much as they like.
        if record.target().starts_with("fuse_backend_rs") {
            return;
        }
        let state = self.state();
        if !state.wants(record.module_path()) {
            return;
        }
        let line = state.line(record);
        let written = match state.output.as_ref() {
            Some(mut output) => output.write(line.as_bytes()),
            None => std::io::stderr().write(line.as_bytes()),
        };
        if written.ok() != Some(line.len()) {
            MISSED.inc();
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            id: "vm".into(),
            asked: false,
            output: None,
            level: false,
            origin: false,
            module: None,
        }
    }

    fn line(state: &State, text: &str) -> String {
        let mut record = Record::builder();
        record
            .level(log::Level::Warn)
            .file(Some("src/a.rs"))
            .line(Some(7));
        let arguments = format_args!("{text}");
        state.line(&record.args(arguments).build())
    }

    #[test]
    fn a_line_says_what_was_asked_for() {
        let mut state = state();
        let plain = line(&state, "hello");
        let (time, rest) = plain.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-01-02T03:04:05.123456789".len());
        assert!(
            rest.starts_with("[vm:") && rest.ends_with("] hello\n") && !rest.contains("WARN"),
            "{rest}"
        );
        (state.level, state.origin) = (true, true);
        assert!(line(&state, "hello").ends_with(":WARN:src/a.rs:7] hello\n"));
        assert_eq!(
            line(&state, &"€".repeat(LINE_MAX)).len().next_multiple_of(4),
            LINE_MAX
        );
        state.module = Some("berth_vmm::api".into());
        assert!(state.wants(Some("berth_vmm::api::server")) && !state.wants(Some("berth_vmm::run")));
    }

    #[test]
    fn a_pipe_that_nobody_reads_keeps_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let mut pipe = open_output(&path).unwrap();
        let mut lines = 0;
        while pipe.write(&[b'x'; LINE_MAX]).is_ok() {
            lines += 1;
        }
        assert!(lines > 0);
        let file = directory.path().join("file");
        open_output(&file).unwrap().write_all(b"one\n").unwrap();
        open_output(&file).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        assert!(
            open_output(Path::new("/nowhere/log"))
                .unwrap_err()
                .told()
                .contains("cannot open /nowhere/log")
        );
    }
}
