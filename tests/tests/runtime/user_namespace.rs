//! User namespaces, new and joined, and other namespaces joined by path.

use berth_tests::{Bundle, Need, require};
use serde_json::json;

fn with_user_namespace(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(args);
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("list")
        .push(json!({"type": "user"}));
    bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    for path in [
        bundle.path().to_owned(),
        bundle.rootfs(),
        bundle.rootfs().join("bin"),
    ] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    bundle
}

#[test]
fn root_inside_is_nobody_outside() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = with_user_namespace(&["sleep", "1000"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let pid = bundle.state_field("pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let ids = |name: &str| {
        status
            .lines()
            .find(|l| l.starts_with(name))
            .map(|l| l.split_whitespace().nth(1).map(str::to_owned))
    };
    assert_eq!(ids("Uid:").flatten().as_deref(), Some("100000"));
    assert_eq!(ids("Gid:").flatten().as_deref(), Some("200000"));
    assert_eq!(bundle.exec(&["id", "-u"]), "0");
    assert_eq!(
        bundle
            .exec(&["cat", "/proc/self/uid_map"])
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
}

#[test]
fn namespaces_of_another_container_are_joined_by_path() {
    if !require(&[Need::Root]) {
        return;
    }
    let first = Bundle::new(&["sleep", "1000"]);
    let _ = first.verb(&["run", "--detach"]).ok();
    let pid = first.state_field("pid");
    let mut second = Bundle::new(&[
        "sh",
        "-c",
        "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; echo $$",
    ]);
    second.config["hostname"] = json!(null);
    second.config["linux"]["namespaces"] = json!([{"type": "mount"},
        {"type": "pid", "path": format!("/proc/{pid}/ns/pid")},
        {"type": "network", "path": format!("/proc/{pid}/ns/net")},
        {"type": "ipc", "path": format!("/proc/{pid}/ns/ipc")}]);
    let text = second.verb(&["run"]).ok();
    let mut lines = text.lines();
    for name in ["net", "ipc"] {
        let want = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("namespace");
        assert_eq!(lines.next(), Some(want.display().to_string().as_str()));
    }
    assert_ne!(lines.next(), Some("1"), "the pid namespace has an init already");
    second.assert_clean();
}

#[test]
fn every_kind_of_namespace_is_joined_by_path() {
    if !require(&[Need::Root]) {
        return;
    }
    // As config.json names them, and as /proc does; the mount namespace has tests of its own.
    const KINDS: [(&str, &str); 7] = [
        ("user", "user"),
        ("pid", "pid"),
        ("network", "net"),
        ("uts", "uts"),
        ("ipc", "ipc"),
        ("cgroup", "cgroup"),
        ("time", "time"),
    ];
    let mut first = with_user_namespace(&["sleep", "1000"]);
    let list = KINDS.map(|(kind, _)| json!({"type": kind}));
    first.config["linux"]["namespaces"] = json!(list);
    first.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("list")
        .push(json!({"type": "mount"}));
    let _ = first.verb(&["run", "--detach"]).ok();
    let of_first = format!("/proc/{}/ns", first.state_field("pid"));

    let mut second = with_user_namespace(&[
        "sh",
        "-c",
        "for kind in user pid net uts ipc cgroup time; do readlink /proc/self/ns/$kind; done",
    ]);
    second.config["hostname"] = json!(null);
    let mut list: Vec<_> = KINDS
        .iter()
        .map(|(kind, name)| json!({"type": kind, "path": format!("{of_first}/{name}")}))
        .collect();
    list.push(json!({"type": "mount"}));
    second.config["linux"]["namespaces"] = json!(list);
    let text = second.verb(&["run"]).ok();
    let found: Vec<_> = text.lines().collect();
    let want: Vec<_> = KINDS
        .iter()
        .map(|(_, name)| std::fs::read_link(format!("{of_first}/{name}")).expect("namespace"))
        .map(|link| link.display().to_string())
        .collect();
    assert_eq!(found, want);
    second.assert_clean();
}

#[test]
fn a_score_for_the_oom_killer_is_set_in_a_new_one_and_in_a_joined_one() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut first = with_user_namespace(&["sleep", "1000"]);
    first.config["process"]["oomScoreAdj"] = json!(321);
    let _ = first.verb(&["run", "--detach"]).ok();
    let score = |pid: &serde_json::Value| {
        std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("score")
    };
    let pid = first.state_field("pid");
    assert_eq!(score(&pid), "321\n");

    let mut second = with_user_namespace(&["sleep", "1000"]);
    let namespaces = second.config["linux"]["namespaces"].as_array_mut().expect("list");
    let user = namespaces.last_mut().expect("the one just added");
    user["path"] = json!(format!("/proc/{pid}/ns/user"));
    second.config["process"]["oomScoreAdj"] = json!(654);
    let _ = second.verb(&["run", "--detach"]).ok();
    assert_eq!(score(&second.state_field("pid")), "654\n");
}
