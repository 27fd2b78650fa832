//! A `berth` with a root and a state of its own, and a busybox image made from Debian's static busybox.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Network;

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// The exit code; 128+n when a signal ended it.
    pub code: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Output {
    /// The trimmed standard output of a command that must have worked.
    ///
    /// # Panics
    /// When it did not end with 0; the message holds everything it printed.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.trim_end().to_owned()
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        Self {
            code: output
                .status
                .code()
                .unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A `berth` whose `--root` and `--state` belong to one test. Dropping it removes its containers, then its directories.
#[derive(Debug)]
pub struct Berth {
    directory: tempfile::TempDir,
    network: Option<Network>,
}

impl Default for Berth {
    fn default() -> Self {
        Self::new()
    }
}

impl Berth {
    /// A store with nothing in it.
    ///
    /// # Panics
    /// When no temporary directory can be made.
    #[must_use]
    pub fn new() -> Self {
        Self {
            directory: tempfile::Builder::new()
                .prefix("berth-test-")
                .tempdir()
                .expect("make a directory"),
            network: None,
        }
    }

    /// As [`Berth::with_busybox`], run in a network namespace of its own: bridges, rules and published ports are there.
    ///
    /// # Panics
    /// When the namespace cannot be made or the image cannot be imported.
    #[must_use]
    pub fn in_own_network() -> Self {
        let mut berth = Self::with_busybox();
        berth.enter_network();
        berth
    }

    /// From here on it runs in a network namespace of its own.
    ///
    /// # Panics
    /// When the namespace cannot be made.
    pub fn enter_network(&mut self) {
        self.network = Some(Network::new());
    }

    /// From here on it runs in the test's own network namespace, where a [`Registry`](crate::Registry) is. It must have no
    /// containers then.
    pub fn leave_network(&mut self) {
        self.network = None;
    }

    /// The network namespace of [`Berth::in_own_network`].
    ///
    /// # Panics
    /// When it runs in the test's own.
    #[must_use]
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("the test made a network of its own")
    }

    /// A store that holds the image `busybox`.
    ///
    /// # Panics
    /// When the image cannot be imported.
    #[must_use]
    pub fn with_busybox() -> Self {
        let berth = Self::new();
        let archive = busybox_archive(berth.directory.path());
        let _ = berth
            .run([
                "import",
                archive.to_str().expect("temporary paths are UTF-8"),
                "busybox:latest",
            ])
            .ok();
        berth
    }

    /// `--root`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// `--state`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A directory for what else the test needs.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The command `berth --root … --state … ARGUMENTS`, not yet started.
    #[must_use]
    pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Command {
        let program = crate::binary("berth");
        let mut command = match &self.network {
            Some(network) => network.command(program),
            None => Command::new(program),
        };
        command
            .arg("--root")
            .arg(self.root())
            .arg("--state")
            .arg(self.state())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs `berth ARGUMENTS` to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Output {
        self.command(arguments).output().expect("start berth").into()
    }

    /// Runs `berth ARGUMENTS` to its end with `input` on standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn feed<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, input: &str, arguments: I) -> Output {
        let mut process = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start berth");
        let mut stdin = process.stdin.take().expect("stdin is a pipe");
        // Whoever does not read its input closes it early; that is what some tests are about.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        process.wait_with_output().expect("wait for berth").into()
    }

    /// What is left of containers on the host and in the state directory: mounts, shims, links, nftables tables, records
    /// of namespaces. Waits a while for it to become nothing: a container's end is told before its shim has gone.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = self.left_now();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left_now(&self) -> Vec<String> {
        let mut left = self.mounts_left();
        left.extend(self.shims().iter().map(|pid| format!("shim {pid}")));
        if let Some(network) = &self.network {
            left.extend(network.left());
        }
        for directory in ["containers", "netns", "runtime", "networks/.attachments"] {
            let entries = std::fs::read_dir(self.state().join(directory))
                .into_iter()
                .flatten()
                .flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        left
    }

    /// Pids of the shims that serve this store's state directory.
    ///
    /// # Panics
    /// When /proc cannot be read.
    #[must_use]
    pub fn shims(&self) -> Vec<i32> {
        let state = self.state();
        let state = state.as_os_str().as_encoded_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("read /proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let is_shim = std::fs::read_to_string(entry.path().join("comm"))
                .is_ok_and(|comm| comm.starts_with("berth-shim"));
            let is_ours = std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|command| command.windows(state.len()).any(|window| window == state));
            if is_shim && is_ours {
                found.push(pid);
            }
        }
        found
    }

    /// Mounts of this process's namespace that lie below the test's directories; empty after a clean test.
    ///
    /// # Panics
    /// When mountinfo cannot be read.
    #[must_use]
    pub fn mounts_left(&self) -> Vec<String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
        let below = self.directory.path().to_str().expect("temporary paths are UTF-8");
        mounts
            .lines()
            .filter(|line| line.contains(below))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let listed = self.run(["ps", "--all", "--quiet", "--no-trunc"]);
        for id in listed.stdout.split_whitespace() {
            self.run(["rm", "--force", "--volumes", id]);
        }
    }
}

/// Writes a tar archive of a root file system with Debian's static busybox below `directory` and returns its path.
///
/// # Panics
/// When busybox-static or tar is missing.
#[must_use]
pub fn busybox_archive(directory: &Path) -> PathBuf {
    let tree = directory.join("busybox");
    busybox_tree(&tree);
    let archive = directory.join("busybox.tar");
    let status = Command::new("tar")
        .arg("-C")
        .arg(tree)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status()
        .expect("start tar");
    assert!(status.success(), "tar: {status}");
    archive
}

/// Copies a program by another process. A descriptor of ours, open for writing, could be inherited by a child another test
/// forks at that moment, and the program would be "text file busy" until that child executes.
///
/// # Panics
/// When it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().expect("start cp");
    assert!(copied.success(), "cannot copy {}", from.display());
}

/// Makes a root file system of Debian's static busybox in `directory`.
///
/// # Panics
/// When busybox-static is missing.
pub fn busybox_tree(directory: &Path) {
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
        std::fs::create_dir_all(directory.join(name)).expect("make a directory");
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    copy_program(
        Path::new(busybox.expect("busybox-static is installed")),
        &directory.join("bin/busybox"),
    );
    let listed = Command::new(directory.join("bin/busybox"))
        .arg("--list")
        .output()
        .expect("start busybox");
    for applet in String::from_utf8_lossy(&listed.stdout)
        .split_whitespace()
        .filter(|&applet| applet != "busybox")
    {
        symlink("busybox", directory.join("bin").join(applet)).expect("link an applet");
    }
    std::fs::write(
        directory.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    )
    .expect("write passwd");
    std::fs::write(
        directory.join("etc/group"),
        "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n",
    )
    .expect("write group");
}
