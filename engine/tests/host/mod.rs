//! An engine of a test's own, over the real kernel. Needs root and Debian's busybox-static.

#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;

use berth_engine::config::ImageOrigin;
use berth_engine::flags::NetworkMode;
use berth_engine::{
    ContainerId, CreateRequest, Engine, HostConfig, ListOptions, LogOptions, Paths, RemoveOptions,
    StartOptions,
};
use berth_images::config::RunConfig;

/// An engine of the test's own, with one busybox layer; everything goes with it.
pub struct Host {
    pub engine: Engine,
    pub layer: PathBuf,
    pub dir: tempfile::TempDir,
}

/// The engine, or none when the tests cannot run here; says so.
pub fn host() -> Option<Host> {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/bin/busybox").exists() {
        assert!(
            std::env::var_os("BERTH_TESTS_STRICT").is_none(),
            "skipped: needs root and busybox"
        );
        eprintln!("skipped: needs root and busybox");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let layer = dir.path().join("layer");
    for sub in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(layer.join(sub)).unwrap();
    }
    std::fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "true", "false", "echo", "sleep", "cat", "id", "kill", "ps", "pwd", "env", "tty", "seq",
    ] {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        layer.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/www:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(layer.join("etc/notes"), "not a program").unwrap();
    let paths = Paths {
        root: dir.path().join("root"),
        state: dir.path().join("state"),
    };
    let engine = Engine::open(paths)
        .unwrap()
        .with_shim(env!("CARGO_BIN_EXE_berth-shim"));
    Some(Host { engine, layer, dir })
}

impl Drop for Host {
    fn drop(&mut self) {
        for row in self
            .engine
            .list(&ListOptions {
                all: true,
                ..ListOptions::default()
            })
            .unwrap_or_default()
        {
            let _ = self.engine.remove(
                &row.id,
                RemoveOptions {
                    force: true,
                    volumes: true,
                },
            );
        }
    }
}

impl Host {
    pub fn create(&self, command: &[&str], change: impl FnOnce(&mut CreateRequest)) -> ContainerId {
        let mut request = CreateRequest {
            image: "busybox".into(),
            command: command.iter().map(ToString::to_string).collect(),
            host: HostConfig {
                network: NetworkMode::None,
                ..HostConfig::default()
            },
            ..CreateRequest::default()
        };
        change(&mut request);
        let origin = ImageOrigin {
            name: "busybox".into(),
            id: "sha256:00".into(),
            layers: vec![self.layer.clone()],
        };
        self.engine
            .create_from(&request, origin, &RunConfig::default())
            .unwrap()
            .id
    }

    pub fn start(&self, id: &ContainerId) {
        self.engine
            .start(id, &StartOptions::default())
            .map_err(|e| e.chain())
            .unwrap();
    }

    /// A running container's root as the host reaches it.
    pub fn root_of(&self, id: &ContainerId) -> PathBuf {
        format!("/proc/{}/root", self.engine.state(id).unwrap().pid).into()
    }

    pub fn logs(&self, id: &ContainerId) -> String {
        let mut text = String::new();
        let mut sink = |e: &berth_engine::LogEntry| {
            text.push_str(&e.text);
            Ok(())
        };
        self.engine.logs(id, &LogOptions::default(), &mut sink).unwrap();
        text
    }

    pub fn left(&self) -> Vec<String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.dir.path().to_str().unwrap();
        mounts
            .lines()
            .filter(|l| l.contains(here))
            .map(str::to_owned)
            .collect()
    }
}
