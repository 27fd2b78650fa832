//! `berth-runtime` in runc's place: podman and containerd run on it unmodified.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_tests::berth::{busybox_archive, busybox_tree};
use berth_tests::{Need, Output, binary, require};

/// A podman with a store of its own that uses `berth-runtime`. It makes no network: its bridge would be the host's.
struct Podman {
    directory: tempfile::TempDir,
}

impl Podman {
    fn new() -> Self {
        let podman = Self {
            directory: tempfile::Builder::new()
                .prefix("berth-podman-")
                .tempdir()
                .expect("directory"),
        };
        let archive = busybox_archive(podman.directory.path());
        let _ = podman
            .run(&[
                "import",
                "--quiet",
                archive.to_str().expect("UTF-8"),
                "busybox:latest",
            ])
            .ok();
        podman
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let below = |name: &str| self.directory.path().join(name);
        Command::new("podman")
            .arg("--root")
            .arg(below("root"))
            .arg("--runroot")
            .arg(below("run"))
            .arg("--tmpdir")
            .arg(below("tmp"))
            .args(["--cgroup-manager", "cgroupfs", "--runtime"])
            .arg(binary("berth-runtime"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("start podman")
            .into()
    }

    /// `podman run` without the limits podman would raise: raising them needs CAP_SYS_RESOURCE.
    fn run_container(&self, arguments: &[&str]) -> Output {
        let fixed = [
            "run",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ];
        self.run(&[&fixed[..], arguments].concat())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["rm", "--all", "--force", "--time", "0"]);
        let root = self.directory.path().join("root/overlay");
        let _ = rustix::mount::unmount(root, rustix::mount::UnmountFlags::DETACH);
    }
}

const PODMAN: [Need; 3] = [Need::Root, Need::Program("podman"), Need::Program("busybox")];

#[test]
fn podman_runs_a_container_and_returns_its_output_and_exit_code() {
    if !require(&PODMAN) {
        return;
    }
    let podman = Podman::new();
    assert_eq!(
        podman.run_container(&["--rm", "busybox", "echo", "hello"]).ok(),
        "hello"
    );
    assert_eq!(
        podman
            .run_container(&["--rm", "busybox", "sh", "-c", "exit 7"])
            .code,
        7
    );
    assert_eq!(
        podman
            .run_container(&["--rm", "busybox", "/no/such/program"])
            .code,
        127
    );
    assert_eq!(
        podman.run_container(&["--rm", "busybox", "/etc/passwd"]).code,
        126
    );
}

#[test]
fn podman_execs_pauses_limits_and_stops() {
    if !require(&PODMAN) {
        return;
    }
    let podman = Podman::new();
    let started = podman.run_container(&[
        "-d", "--name", "drop-in", "--memory", "64m", "busybox", "sleep", "600",
    ]);
    let _ = started.ok();
    assert_eq!(
        podman.run(&["exec", "drop-in", "cat", "/proc/1/comm"]).ok(),
        "sleep"
    );
    assert_eq!(
        podman
            .run(&["exec", "--user", "1000:2000", "drop-in", "id", "-u"])
            .ok(),
        "1000"
    );
    assert_eq!(podman.run(&["exec", "drop-in", "sh", "-c", "exit 9"]).code, 9);
    let _ = podman.run(&["pause", "drop-in"]).ok();
    assert_eq!(
        podman
            .run(&["inspect", "--format", "{{.State.Status}}", "drop-in"])
            .ok(),
        "paused"
    );
    let _ = podman.run(&["unpause", "drop-in"]).ok();
    let _ = podman.run(&["stop", "--time", "1", "drop-in"]).ok();
    let _ = podman.run(&["rm", "drop-in"]).ok();
}

#[test]
fn podman_gives_a_terminal() {
    if !require(&PODMAN) {
        return;
    }
    let podman = Podman::new();
    let printed = podman.run_container(&["--rm", "--tty", "busybox", "tty"]).ok();
    assert!(printed.starts_with("/dev/"), "{printed}");
}

/// A containerd with a state of its own, stopped when dropped.
struct Containerd {
    directory: tempfile::TempDir,
    process: Child,
}

impl Containerd {
    fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("berth-ctd-")
            .tempdir()
            .expect("directory");
        let below = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            below("root"),
            below("state"),
            below("sock"),
            below("ttrpc")
        );
        std::fs::write(directory.path().join("config.toml"), config).expect("write the configuration");
        let log = std::fs::File::create(directory.path().join("log")).expect("create the log");
        let process = Command::new("containerd")
            .arg("--config")
            .arg(directory.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let containerd = Self { directory, process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while containerd.ctr(&["version"]).code != 0 {
            let log = std::fs::read_to_string(containerd.path("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "containerd does not answer: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        Command::new("ctr")
            .arg("--address")
            .arg(self.path("sock"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("start ctr")
            .into()
    }

    /// `ctr run` on a plain root file system: no snapshotter is involved, the runtime is all that is tried.
    fn run(&self, rootfs: &Path, id: &str, arguments: &[&str]) -> Output {
        let runtime = binary("berth-runtime").display().to_string();
        let rootfs = rootfs.to_str().expect("UTF-8");
        let fixed = ["run", "--rm", "--runc-binary", &runtime, "--rootfs", rootfs, id];
        self.ctr(&[&fixed[..], arguments].concat())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn containerd_runs_a_container_and_returns_its_output_and_exit_code() {
    if !require(&[
        Need::Root,
        Need::Program("containerd"),
        Need::Program("ctr"),
        Need::Program("busybox"),
    ]) {
        return;
    }
    let containerd = Containerd::start();
    let rootfs = containerd.path("rootfs");
    busybox_tree(&rootfs);
    let printed = containerd
        .run(&rootfs, "berth-drop-in-1", &["/bin/echo", "hello"])
        .ok();
    assert_eq!(printed, "hello");
    assert_eq!(
        containerd
            .run(&rootfs, "berth-drop-in-2", &["/bin/sh", "-c", "exit 5"])
            .code,
        5
    );
}
