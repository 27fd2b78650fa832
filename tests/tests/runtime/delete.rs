//! `delete`, also of what crashes left.

use berth_tests::{Bundle, Need, require};

#[test]
fn a_running_container_needs_force() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let refused = bundle.verb(&["delete"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("that is not stopped: running"),
        "{}",
        refused.stderr
    );
    let _ = bundle.verb(&["delete", "--force"]).ok();
    bundle.assert_clean();
    let _ = bundle.verb(&["delete", "--force"]).ok();
}

#[test]
fn parents_of_the_cgroup_go_with_their_last_child_if_they_are_ours() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut first = Bundle::new(&["sleep", "1000"]);
    let mut second = Bundle::new(&["sleep", "1000"]);
    let ours = format!("{}-parent", first.id);
    for bundle in [&mut first, &mut second] {
        bundle.config["linux"]["cgroupsPath"] = format!("/{ours}/deep/{}", bundle.id).into();
        let _ = bundle.verb(&["run", "--detach"]).ok();
    }
    let left = |name: &str| {
        let roots = std::fs::read_dir("/sys/fs/cgroup")
            .expect("cgroups")
            .flatten()
            .map(|e| e.path());
        let all: Vec<_> = roots
            .chain(["/sys/fs/cgroup".into()])
            .map(|root| root.join(name))
            .filter(|p| p.exists())
            .collect();
        all
    };
    // Not the maker of the parents is last, as it often is.
    let _ = first.verb(&["delete", "--force"]).ok();
    assert!(!left(&ours).is_empty(), "the second is still in it");
    let _ = second.verb(&["delete", "--force"]).ok();
    assert_eq!(left(&ours), Vec::<std::path::PathBuf>::new());

    let others = format!("{}-others", first.id);
    let root = if std::path::Path::new("/sys/fs/cgroup/pids").exists() {
        "pids"
    } else {
        ""
    };
    let foreign = std::path::Path::new("/sys/fs/cgroup").join(root).join(&others);
    std::fs::create_dir(&foreign).expect("a cgroup of somebody else's");
    let mut third = Bundle::new(&["true"]);
    third.config["linux"]["cgroupsPath"] = format!("/{others}/{}", third.id).into();
    let ran = third.verb(&["run"]);
    let stays = left(&others);
    std::fs::remove_dir(&foreign).expect("empty and there");
    let _ = ran.ok();
    assert_eq!(stays, [foreign]);
}

#[test]
fn a_reused_pid_is_neither_running_nor_killed() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let _ = bundle.verb(&["kill", "--all"]).code;
    let _ = bundle.verb(&["kill"]).code;
    // The record now names another process: same pid as one of ours, another start time.
    let mut bystander = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("sleep");
    let path = bundle.state().join(&bundle.id).join("state.json");
    let mut record: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("record")).expect("json");
    let real = record["pid"].clone();
    record["pid"] = bystander.id().into();
    std::fs::write(&path, record.to_string()).expect("write");
    assert_eq!(bundle.state_field("status"), "stopped");
    assert_eq!(bundle.verb(&["kill"]).code, 1);
    let _ = bundle.verb(&["delete", "--force"]).ok();
    assert!(
        bystander.try_wait().expect("wait").is_none(),
        "the bystander lives"
    );
    let _ = bystander.kill();
    let _ = bystander.wait();
    let _ = real;
    bundle.assert_clean();
}

#[test]
fn create_killed_at_any_point_leaves_what_delete_force_removes() {
    if !require(&[Need::Root]) {
        return;
    }
    for microseconds in [0, 500, 1000, 2000, 3000, 4000, 6000, 8000, 12000, 20000] {
        let bundle = Bundle::new(&["sleep", "1000"]);
        let mut create = bundle.command(&["create", &bundle.id]).spawn().expect("start");
        std::thread::sleep(std::time::Duration::from_micros(microseconds));
        let _ = create.kill();
        let _ = create.wait();
        let deleted = bundle.verb(&["delete", "--force"]);
        assert_eq!(deleted.code, 0, "after {microseconds} us: {}", deleted.stderr);
        bundle.assert_clean();
    }
}
