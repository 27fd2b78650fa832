//! What is refused there, and that nothing is made before.

use berth_tests::{Need, require};
use serde_json::json;

use super::{PROC, bare, joining, namespaces, shell};

#[test]
fn a_root_that_is_only_on_the_host_is_not_found() {
    if !require(&[Need::Root]) {
        return;
    }
    let hidden = bare(&[]);
    let (mut bundle, owner) = joining(
        &["true"],
        &format!("mount -t tmpfs empty {}", hidden.path().display()),
    );
    let before = owner.mountinfo();
    bundle.config["root"]["path"] = json!(hidden.rootfs());
    let ran = bundle.verb(&["create"]);
    let words = format!(
        "rootfs {} in the joined mount namespace",
        hidden.rootfs().display()
    );
    assert!(ran.code == 1 && ran.stderr.contains(&words), "{}", ran.stderr);
    // Nor through a link by which some process sees it.
    let through = format!("/proc/{}/root{}", std::process::id(), hidden.rootfs().display());
    bundle.config["root"]["path"] = json!(through);
    let ran = bundle.verb(&["create"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("in the joined mount namespace"),
        "{}",
        ran.stderr
    );
    assert_eq!(owner.mountinfo(), before);
    bundle.assert_clean();
}

#[test]
fn what_would_change_the_namespace_is_refused_by_field() {
    if !require(&[Need::Root]) {
        return;
    }
    let (bundle, owner) = joining(&["true"], "");
    let before = owner.mountinfo();
    let cases = [
        (
            "mounts",
            "/mounts",
            json!([{"destination": "/proc", "type": "proc"}]),
        ),
        ("root.readonly", "/root/readonly", json!(true)),
        ("linux.maskedPaths", "/linux/maskedPaths", json!(["/proc/kcore"])),
        (
            "linux.readonlyPaths",
            "/linux/readonlyPaths",
            json!(["/proc/sys"]),
        ),
        (
            "linux.rootfsPropagation",
            "/linux/rootfsPropagation",
            json!("private"),
        ),
        ("linux.mountLabel", "/linux/mountLabel", json!("a:b:c:d")),
        (
            "linux.devices",
            "/linux/devices",
            json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]),
        ),
        (
            "hooks.createContainer",
            "/hooks",
            json!({"createContainer": shell("true")}),
        ),
    ];
    let good = bundle.config.clone();
    let mut bundle = bundle;
    for (field, at, value) in cases {
        bundle.config = good.clone();
        let (parent, key) = at.rsplit_once('/').expect("pointer");
        bundle.config.pointer_mut(parent).expect("parent")[key] = value;
        let ran = bundle.verb(&["create"]);
        let words = format!("field {field}: ");
        assert!(
            ran.code == 1 && ran.stderr.contains(&words) && ran.stderr.contains("joined mount namespace"),
            "{field}: {}",
            ran.stderr
        );
        bundle.assert_clean();
    }
    assert_eq!(owner.mountinfo(), before);
}

#[test]
fn a_path_of_another_kind_of_namespace_is_refused() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = bare(&["true"]);
    let path = "/proc/self/ns/net";
    namespaces(&mut bundle).push(json!({"type": "mount", "path": path}));
    let ran = bundle.verb(&["create"]);
    let words = format!("linux.namespaces: {path} is a namespace of type net, not mnt");
    assert!(ran.code == 1 && ran.stderr.contains(&words), "{}", ran.stderr);
    bundle.assert_clean();
}

/// CVE-2024-21626, where no pivot has taken the host out of reach.
#[test]
fn a_working_directory_outside_the_root_is_refused() {
    if !require(&[Need::Root]) {
        return;
    }
    let (mut bundle, _owner) = joining(&["ls"], PROC);
    // As a careless caller leaves it: open, and not close-on-exec.
    let host = std::fs::File::open("/").expect("open");
    rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::empty()).expect("fcntl");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&host);
    namespaces(&mut bundle).retain(|ns| ns["type"] != "pid");
    bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
    let ran = bundle.verb(&["run"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("lies outside the container"),
        "{}",
        ran.stderr
    );
    bundle.assert_clean();
}
