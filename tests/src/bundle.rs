//! Bundles for `berth-runtime`, each with directories, ids and cgroups of its own, gone when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::Output;

/// A bundle with a busybox root, and the state directory of the runtime that runs it.
#[derive(Debug)]
pub struct Bundle {
    dir: tempfile::TempDir,
    /// `config.json`; written when a command runs.
    pub config: Value,
    /// The container's id.
    pub id: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Bundle {
    /// A container that runs `args`: new pid, net, ipc, uts, mount and cgroup namespaces, three capabilities.
    ///
    /// # Panics
    /// When the directories cannot be made.
    #[must_use]
    pub fn new(args: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("berth-bundle-")
            .tempdir()
            .expect("a temporary directory");
        crate::berth::busybox_tree(&dir.path().join("rootfs"));
        for name in ["proc", "dev", "sys", "tmp"] {
            std::fs::create_dir_all(dir.path().join("rootfs").join(name)).expect("make a mount point");
        }
        let id = format!(
            "e2e-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let caps = json!([
            "CAP_KILL",
            "CAP_NET_BIND_SERVICE",
            "CAP_CHOWN",
            "CAP_SETUID",
            "CAP_SETGID"
        ]);
        let config = json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin:/sbin:/usr/bin"], "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps}, "noNewPrivileges": true
            },
            "root": {"path": "rootfs"},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
            ],
            "linux": {
                "cgroupsPath": format!("/berth-e2e/{id}"),
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                    {"type": "cgroup"}],
                "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]
            }
        });
        Self { dir, config, id }
    }

    /// The bundle's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The container's root on the host.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// The runtime's `--root`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Whole at every moment: a command started before may be reading it.
    fn write_config(&self) {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let aside = self.path().join(format!("config.json.{next}"));
        std::fs::write(&aside, self.config.to_string()).expect("write config.json");
        std::fs::rename(aside, self.path().join("config.json")).expect("rename config.json");
    }

    /// `berth-runtime --root STATE ARGS` with nothing on stdin, not yet run.
    ///
    /// # Panics
    /// When `config.json` cannot be written.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        self.write_config();
        let mut command = Command::new(crate::binary("berth-runtime"));
        command
            .arg("--root")
            .arg(self.state())
            .args(args)
            .stdin(Stdio::null())
            .current_dir(self.path());
        command
    }

    /// Runs a verb with these arguments; the id is added at the end.
    ///
    /// # Panics
    /// When the binary cannot be started.
    #[must_use]
    pub fn verb(&self, args: &[&str]) -> Output {
        let args: Vec<&str> = args.iter().copied().chain([self.id.as_str()]).collect();
        self.output(&args)
    }

    /// Runs the runtime with exactly these arguments.
    ///
    /// # Panics
    /// When the binary cannot be started.
    #[must_use]
    pub fn output(&self, args: &[&str]) -> Output {
        // Files, not pipes: a container that outlives the command would keep a pipe open and us waiting.
        let out = self.path().join("out");
        let err = self.path().join("err");
        let create = |path: &Path| std::fs::File::create(path).expect("make a file for output");
        let status = self
            .command(args)
            .stdout(create(&out))
            .stderr(create(&err))
            .status()
            .expect("start berth-runtime");
        let read =
            |path: &Path| String::from_utf8_lossy(&std::fs::read(path).expect("read output")).into_owned();
        Output {
            code: status.code().unwrap_or(-1),
            stdout: read(&out),
            stderr: read(&err),
        }
    }

    /// What `exec` prints, which must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn exec(&self, program: &[&str]) -> String {
        let args: Vec<&str> = ["exec", self.id.as_str()]
            .into_iter()
            .chain(program.iter().copied())
            .collect();
        self.output(&args).ok()
    }

    /// `state`'s field.
    ///
    /// # Panics
    /// When there is no such container.
    #[must_use]
    pub fn state_field(&self, field: &str) -> Value {
        serde_json::from_str::<Value>(&self.verb(&["state"]).ok()).expect("state is JSON")[field].clone()
    }

    /// Directories of this container's cgroup that are still there.
    #[must_use]
    pub fn cgroups_left(&self) -> Vec<PathBuf> {
        let roots = std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path());
        let all = roots.chain([PathBuf::from("/sys/fs/cgroup")]);
        all.map(|root| root.join("berth-e2e").join(&self.id))
            .filter(|path| path.exists())
            .collect()
    }

    /// Asserts that no trace of the container is left.
    ///
    /// # Panics
    /// When there is one.
    pub fn assert_clean(&self) {
        assert_eq!(self.cgroups_left(), Vec::<PathBuf>::new());
        assert!(!self.state().join(&self.id).exists(), "state is left");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // Whatever a failed assertion left running.
        let _ = self
            .command(&["delete", "--force", &self.id])
            .stderr(Stdio::null())
            .status();
    }
}
