//! A `berth-vmm` with an API socket, asked as its clients ask: HTTP over a Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::patience::{HANG, eventually};

/// How long one that is told to end may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// A running monitor with a directory of its own: socket `api`, log `log`, metrics `metrics`, console `console`. Killed when
/// dropped.
pub struct VmmApi {
    /// Where all that is.
    pub directory: tempfile::TempDir,
    /// The process, whose standard input is the console's.
    pub process: Child,
}

impl VmmApi {
    /// Starts `program` with `flags` besides, and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn start(program: &Path, flags: &[&str]) -> VmmApi {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let console = std::fs::File::create(at("console")).expect("a file");
        let process = Command::new(program)
            .arg("--api-sock")
            .arg(at("api"))
            .arg("--log-path")
            .arg(at("log"))
            .arg("--metrics-path")
            .arg(at("metrics"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(console.try_clone().expect("a descriptor"))
            .stderr(console)
            .spawn()
            .expect("start berth-vmm");
        let vmm = VmmApi { directory, process };
        // The socket has its name before anybody listens.
        eventually("it listens", || UnixStream::connect(vmm.socket()).is_ok());
        vmm
    }

    /// The process the machine runs in, the only child of the one that was started: the one in the jail.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn machine(&self) -> u32 {
        let keeper = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
        let children = children.expect("the kernel tells of children");
        children.trim().parse().expect("a machine runs")
    }

    /// The API's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("api")
    }

    /// What the guest and the monitor said, or what is in its `log` or `metrics`.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    #[must_use]
    pub fn text(&self, file: &str) -> String {
        let bytes = std::fs::read(self.directory.path().join(file)).expect("it writes one");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks once; the status and the body.
    ///
    /// # Panics
    ///
    /// When there is no answer, or one that is not HTTP.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut socket = UnixStream::connect(self.socket()).unwrap_or_else(|e| {
            let (console, log) = (self.text("console"), self.text("log"));
            panic!("it does not listen: {e}\n{console}\n{log}")
        });
        socket.set_read_timeout(Some(HANG)).expect("a socket");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        assert!(
            read.is_ok(),
            "it does not answer: {read:?}\n{}",
            self.text("console")
        );
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(body).expect("JSON")
        };
        (status.expect("a status"), body)
    }

    /// Asks for something that is done.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn done(&self, method: &str, path: &str, body: &str) {
        let answer = self.ask(method, path, body);
        assert_eq!(
            answer,
            (204, Value::Null),
            "{method} {path} {body}\n{}",
            self.text("log")
        );
    }

    /// Asks for something that is refused; why.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[must_use]
    pub fn refused(&self, method: &str, path: &str, body: &str) -> String {
        let (status, body) = self.ask(method, path, body);
        assert_eq!(status, 400, "{method} {path}: {body}");
        body["fault_message"].as_str().expect("a reason").to_owned()
    }

    /// Types at the guest's console.
    ///
    /// # Panics
    ///
    /// When the monitor does not listen.
    pub fn type_at_console(&mut self, text: &str) {
        let console = self.process.stdin.as_mut().expect("it is a pipe");
        console.write_all(text.as_bytes()).expect("it listens");
    }

    /// Waits for its end; its exit status.
    ///
    /// # Panics
    ///
    /// When it does not end, or by a signal.
    #[must_use]
    pub fn wait(&mut self) -> i32 {
        let mut status = None;
        eventually("it ends", || {
            status = self.process.try_wait().expect("it is ours");
            status.is_some()
        });
        status
            .and_then(|status| status.code())
            .expect("it ended by itself")
    }
}

impl Drop for VmmApi {
    fn drop(&mut self) {
        // Asked first, it leaves no cgroup behind. It may have ended.
        let _ = rustix::process::kill_process(Pid::from_child(&self.process), Signal::TERM);
        let begin = Instant::now();
        while begin.elapsed() < FAREWELL && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
