//! `update`: limits of a container that lives, by flags and by a file.

use std::io::Write;
use std::process::Stdio;

use berth_tests::{Bundle, Need, require};
use serde_json::json;

const LIMIT: &str = "64m";
const LIMIT_BYTES: u64 = 64 << 20;

fn running(bundle: Bundle) -> Bundle {
    let _ = bundle.verb(&["run", "--detach"]).ok();
    bundle
}

/// A figure of `events --stats`, by JSON pointer.
fn figure(bundle: &Bundle, at: &str) -> serde_json::Value {
    let text = bundle.verb(&["events", "--stats"]).ok();
    let event: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
    event.pointer(at).cloned().unwrap_or_default()
}

#[test]
fn flags_change_limits() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running(Bundle::new(&["sleep", "1000"]));
    let _ = bundle
        .verb(&["update", "--memory", LIMIT, "--pids-limit", "77"])
        .ok();
    assert_eq!(figure(&bundle, "/data/memory/usage/limit"), LIMIT_BYTES);
    assert_eq!(figure(&bundle, "/data/pids/limit"), 77);
    let _ = bundle.verb(&["update", "--pids-limit", "-1"]).ok();
    assert!(
        figure(&bundle, "/data/pids/limit").is_null(),
        "no limit is left out"
    );
}

#[test]
fn resources_come_from_a_file_and_from_stdin_and_flags_win() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running(Bundle::new(&["sleep", "1000"]));
    let file = bundle.path().join("resources.json");
    std::fs::write(
        &file,
        json!({"pids": {"limit": 50}, "memory": {"limit": LIMIT_BYTES}}).to_string(),
    )
    .expect("write");
    let file = file.display().to_string();
    let _ = bundle
        .verb(&["update", "--resources", &file, "--pids-limit", "51"])
        .ok();
    assert_eq!(figure(&bundle, "/data/pids/limit"), 51);
    assert_eq!(figure(&bundle, "/data/memory/usage/limit"), LIMIT_BYTES);

    let mut update = bundle
        .command(&["update", "-r", "-", &bundle.id])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start");
    let mut stdin = update.stdin.take().expect("piped");
    stdin
        .write_all(json!({"pids": {"limit": 52}}).to_string().as_bytes())
        .expect("write");
    drop(stdin);
    assert!(update.wait().expect("wait").success());
    assert_eq!(figure(&bundle, "/data/pids/limit"), 52);
}

#[test]
fn device_rules_of_an_update_leave_the_default_devices_usable() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    let bundle = running(bundle);
    let file = bundle.path().join("resources.json");
    std::fs::write(
        &file,
        json!({"devices": [{"allow": false, "access": "rwm"}]}).to_string(),
    )
    .expect("write");
    let _ = bundle.verb(&["update", "-r", &file.display().to_string()]).ok();
    assert_eq!(
        bundle.exec(&["sh", "-c", "echo x > /dev/null && head -c 1 /dev/zero | wc -c"]),
        "1"
    );
}

#[test]
fn bad_values_are_named_and_change_nothing() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running(Bundle::new(&["sleep", "1000"]));
    for (args, words) in [
        (
            &["update", "--memory", "8m", "--memory-swap", "4m"][..],
            "linux.resources.memory.swap",
        ),
        (
            &["update", "--l3-cache-schema", "L3:0=f"][..],
            "not supported: --l3-cache-schema",
        ),
        (&["update", "--resources", "/no/such/file"][..], "/no/such/file"),
    ] {
        let ran = bundle.verb(args);
        assert!(
            ran.code == 1 && ran.stderr.contains(words),
            "{args:?}: {}",
            ran.stderr
        );
    }
}
