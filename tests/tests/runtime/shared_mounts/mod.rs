//! A mount namespace that is not the container's own: joined by path, or the runtime's.

mod joined;
mod refused;

use std::io::BufRead;
use std::process::{Child, Command, Stdio};

use berth_tests::Bundle;
use serde_json::{Value, json};

/// A process with a mount namespace of its own, in which the bundle's `inside` is a tmpfs with a busybox root. Ends when
/// dropped.
struct Owner(Child);

impl Owner {
    /// `script` runs in it, with the tmpfs as its working directory.
    fn new(bundle: &Bundle, script: &str) -> Self {
        let inside = bundle.path().join("inside");
        std::fs::create_dir(&inside).expect("make a mount point");
        let script = format!(
            "set -e; mount -t tmpfs inside {inside}; cd {inside}; cp -a {root}/. .; echo here > only-inside
             {script}
             echo ready; exec sleep 1000",
            inside = inside.display(),
            root = bundle.rootfs().display()
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        std::io::BufReader::new(out).read_line(&mut line).expect("read");
        let owner = Self(child);
        assert_eq!(line, "ready\n", "the owner of the namespace did not get ready");
        owner
    }

    fn mountinfo(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/mountinfo", self.0.id())).expect("mountinfo")
    }

    fn namespace(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }

    /// What `ns/mnt` of a process in it reads as.
    fn link(&self) -> String {
        let link = std::fs::read_link(self.namespace("mnt")).expect("namespace");
        link.display().to_string()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bundle that asks for nothing a shared mount namespace forbids, and has none in its list yet.
fn bare(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(args);
    bundle.config["mounts"] = json!([]);
    bundle.config["root"] = json!({"path": "inside"});
    let linux = &mut bundle.config["linux"];
    linux["maskedPaths"] = json!([]);
    linux["readonlyPaths"] = json!([]);
    linux["namespaces"] = json!([{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}]);
    bundle
}

fn namespaces(bundle: &mut Bundle) -> &mut Vec<Value> {
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
}

/// As [`bare`], with the mount namespace of an owner.
fn joining(args: &[&str], script: &str) -> (Bundle, Owner) {
    let mut bundle = bare(args);
    let owner = Owner::new(&bundle, script);
    let path = owner.namespace("mnt");
    namespaces(&mut bundle).push(json!({"type": "mount", "path": path}));
    (bundle, owner)
}

fn shell(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

/// A `/proc` in the root, which shows the owner's pid namespace, the host's.
const PROC: &str = "mount -t proc proc proc";
