//! A bad config.json: the field and the reason, and nothing made.

use berth_tests::{Bundle, Need, require};
use serde_json::{Value, json};

#[test]
fn each_section_names_its_bad_field() {
    if !require(&[Need::Root]) {
        return;
    }
    let cases: [(&str, Value, &str); 19] = [
        ("/ociVersion", json!("3"), "ociVersion"),
        ("/root/path", json!("nowhere"), "nowhere"),
        ("/process/cwd", json!("rel"), "process.cwd"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
            "process.rlimits[0].type",
        ),
        ("/hostname", json!("x".repeat(65)), "hostname"),
        ("/mounts/0/destination", json!(7), "mounts[0].destination"),
        (
            "/hooks",
            json!({"poststop": [{"path": "x"}]}),
            "hooks.poststop[0].path",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/etc/passwd"}]),
            "is not a namespace",
        ),
        (
            "/linux/sysctl",
            json!({"kernel.panic": "1"}),
            "linux.sysctl.kernel.panic",
        ),
        ("/linux/cgroupsPath", json!("/a/../.."), ".."),
        ("/process/env", json!(["A=1", "novalue"]), "process.env[1]"),
        ("/annotations", json!({"": "x"}), "annotations"),
        (
            "/linux/resources",
            json!({"cpu": {"quota": 5}}),
            "linux.resources.cpu.quota",
        ),
        (
            "/linux/resources",
            json!({"devices": [{"allow": true, "access": "z"}]}),
            "linux.resources.devices",
        ),
        (
            "/linux/devices",
            json!([{"path": "rel", "type": "c", "major": 1, "minor": 1}]),
            "linux.devices[0].path",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}),
            "linux.seccomp.syscalls[0].names",
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1}}),
            "linux.timeOffsets.boottime",
        ),
        (
            "/linux/rootfsPropagation",
            json!("loud"),
            "linux.rootfsPropagation",
        ),
        ("/linux/intelRdt", json!({"closID": "a"}), "linux.intelRdt"),
    ];
    for (at, value, words) in cases {
        let mut bundle = Bundle::new(&["true"]);
        let (parent, key) = at.rsplit_once('/').expect("pointer");
        let parent = bundle.config.pointer_mut(parent).expect("parent");
        match key.parse::<usize>() {
            Ok(n) => parent[n] = value,
            Err(_) => parent[key] = value,
        }
        let ran = bundle.verb(&["create"]);
        assert!(
            ran.code == 1 && ran.stderr.contains(words),
            "{at}: {}",
            ran.stderr
        );
        bundle.assert_clean();
    }
}

#[test]
fn text_that_is_not_json_says_where() {
    let bundle = Bundle::new(&["true"]);
    let mut command = bundle.command(&["create", &bundle.id]);
    std::fs::write(
        bundle.path().join("config.json"),
        "{\"ociVersion\": \"1.0.2\",\n oops",
    )
    .expect("write");
    let output = command.output().expect("run");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("config.json") && text.contains("line 2"),
        "{text}"
    );
}
