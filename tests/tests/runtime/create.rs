//! `create`, `start`, `state`, `list`, `ps`.

use berth_tests::{Bundle, Need, require};

#[test]
fn a_created_container_waits_and_a_started_one_runs() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "echo hi > /tmp/started; sleep 1000"]);
    let pid_file = bundle.path().join("pid");
    let _ = bundle
        .verb(&["create", "--pid-file", &pid_file.display().to_string()])
        .ok();
    assert_eq!(bundle.state_field("status"), "created");
    let pid = std::fs::read_to_string(&pid_file).expect("pid file");
    assert_eq!(bundle.state_field("pid").to_string(), pid);
    assert!(!bundle.rootfs().join("tmp/started").exists());

    let _ = bundle.verb(&["start"]).ok();
    assert_eq!(bundle.state_field("status"), "running");
    let again = bundle.verb(&["start"]);
    assert!(
        again.code == 1 && again.stderr.contains("already running"),
        "{}",
        again.stderr
    );
    let list = bundle.output(&["list"]).ok();
    assert!(list.contains(&bundle.id) && list.contains("running"), "{list}");
    assert_eq!(bundle.output(&["list", "-q"]).ok(), bundle.id);
    let pids: Vec<i32> = serde_json::from_str(&bundle.verb(&["ps", "--format", "json"]).ok()).expect("json");
    assert!(pids.iter().any(|p| p.to_string() == pid), "{pids:?}");
    // runc's columns, and its options.
    let table = bundle.verb(&["ps"]).ok();
    let heads: Vec<&str> = table
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(heads, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert!(table.contains("sleep 1000"), "{table}");
    let chosen = bundle.output(&["ps", &bundle.id, "-o", "pid,comm"]).ok();
    let row =
        |line: &str| line.split_whitespace().next() == Some(&pid) && line.split_whitespace().count() == 2;
    assert!(chosen.starts_with("PID ") && chosen.lines().any(row), "{chosen}");
    let refused = bundle.output(&["ps", &bundle.id, "--forest"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("\"--forest\" are not supported"),
        "{}",
        refused.stderr
    );
}

#[test]
fn an_id_is_taken_once() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    let _ = bundle.verb(&["create"]).ok();
    let second = bundle.verb(&["create"]);
    assert!(
        second.code == 1 && second.stderr.contains("exists already"),
        "{}",
        second.stderr
    );
    assert_eq!(
        bundle.state_field("status"),
        "created",
        "the first one is unharmed"
    );
}

#[test]
fn ids_that_leave_the_state_directory_are_refused() {
    let bundle = Bundle::new(&["true"]);
    for id in ["..", "a/b", "", "a b", "x\u{1b}[2J"] {
        let made = bundle.output(&["create", id]);
        assert!(
            made.code == 1 && made.stderr.contains("is not valid"),
            "{id:?}: {}",
            made.stderr
        );
        assert!(!made.stderr.contains('\u{1b}'), "terminal escapes must not pass");
    }
}

#[test]
fn what_was_never_made_does_not_exist() {
    let bundle = Bundle::new(&["true"]);
    for verb in ["state", "start", "delete", "kill", "pause"] {
        let ran = bundle.verb(&[verb]);
        assert!(
            ran.code == 1 && ran.stderr.contains("does not exist"),
            "{verb}: {}",
            ran.stderr
        );
    }
}
