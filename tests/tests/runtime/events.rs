//! `events`: runc's JSON, and kills for lack of memory.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use berth_tests::{Bundle, Need, Output, require};
use serde_json::{Value, json};

/// What of `want`'s shape `have` lacks: missing keys and other types.
fn differences(want: &Value, have: &Value, at: &str, into: &mut Vec<String>) {
    match (want, have) {
        (Value::Object(want), Value::Object(have)) => {
            for (key, value) in want {
                let at = format!("{at}/{key}");
                match have.get(key) {
                    None => into.push(format!("{at} is missing")),
                    // Names and number of these are the kernel's.
                    Some(_) if at.ends_with("/raw") => {}
                    Some(found) => differences(value, found, &at, into),
                }
            }
        }
        (Value::Array(_), Value::Array(_)) => {}
        _ if std::mem::discriminant(want) == std::mem::discriminant(have) => {}
        // An absent list is null to Go.
        (Value::Null, _) => {}
        _ => into.push(format!("{at}: {want} and {have}")),
    }
}

#[test]
fn stats_have_the_shape_of_runcs() {
    if !require(&[Need::Root, Need::Program("runc")]) {
        return;
    }
    let ours = Bundle::new(&["sleep", "1000"]);
    let _ = ours.verb(&["run", "--detach"]).ok();
    let mut peer = Bundle::new(&["sleep", "1000"]);
    peer.config["linux"]["cgroupsPath"] = format!("/{}-runc", peer.id).into();
    let _ = peer.command(&[]);
    let root = peer.path().join("runc");
    let runc = |args: &[&str]| -> Output {
        let mut command = Command::new("runc");
        command
            .arg("--root")
            .arg(&root)
            .args(args)
            .current_dir(peer.path())
            .stdin(Stdio::null());
        // A detached container keeps what it inherits: a file, not a pipe.
        let out = std::fs::File::create(peer.path().join("runc.out")).expect("file");
        let status = command
            .stdout(out)
            .stderr(Stdio::null())
            .status()
            .expect("start runc");
        Output {
            code: status.code().unwrap_or(-1),
            stdout: std::fs::read_to_string(peer.path().join("runc.out")).expect("read"),
            stderr: String::new(),
        }
    };
    let started = runc(&["run", "--detach", &peer.id]);
    let events = runc(&["events", "--stats", &peer.id]);
    let state = runc(&["state", &peer.id]);
    let _ = runc(&["delete", "--force", &peer.id]);
    assert_eq!(
        (started.code, events.code, state.code),
        (0, 0, 0),
        "runc works here"
    );

    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let mut found = Vec::new();
    let want = parse(&events.stdout);
    let have = parse(&ours.verb(&["events", "--stats"]).ok());
    for section in ["cpu", "memory", "pids", "blkio", "hugetlb"] {
        differences(
            &want["data"][section],
            &have["data"][section],
            section,
            &mut found,
        );
    }
    differences(&want["type"], &have["type"], "type", &mut found);
    differences(
        &parse(&state.stdout),
        &parse(&ours.verb(&["state"]).ok()),
        "state",
        &mut found,
    );
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(have["id"], ours.id);
    assert!(
        have["data"]["cpu"]["usage"]["total"]
            .as_u64()
            .is_some_and(|ns| ns > 0),
        "{have}"
    );
    assert!(
        have["data"]["memory"]["usage"]["usage"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0),
        "{have}"
    );
}

#[test]
fn figures_come_at_the_interval_and_end_with_the_container() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let mut events = bundle
        .command(&["events", "--interval", "50ms", &bundle.id])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let mut lines = BufReader::new(events.stdout.take().expect("piped")).lines();
    for _ in 0..3 {
        let line = lines.next().expect("a line").expect("read");
        assert_eq!(
            serde_json::from_str::<Value>(&line).expect("JSON")["type"],
            "stats"
        );
    }
    let _ = bundle.verb(&["delete", "--force"]).ok();
    assert!(events.wait().expect("wait").success());
}

#[test]
fn a_kill_for_lack_of_memory_is_told() {
    if !require(&[Need::Root]) {
        return;
    }
    // The shell waits for the word, so that the events are being read when its child is killed.
    let mut bundle = Bundle::new(&[
        "sh",
        "-c",
        "until test -e /tmp/go; do sleep 0.05; done; tail /dev/zero; sleep 1000",
    ]);
    bundle.config["linux"]["resources"] = json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}});
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let mut events = bundle
        .command(&["events", "--interval", "10h", &bundle.id])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let mut lines = BufReader::new(events.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("figures").expect("read");
    assert!(first.contains("stats"), "{first}");
    std::fs::write(bundle.rootfs().join("tmp/go"), "").expect("write");
    let line = lines.next().expect("a line").expect("read");
    assert_eq!(
        serde_json::from_str::<Value>(&line).expect("JSON"),
        json!({"type": "oom", "id": bundle.id})
    );
    let _ = bundle.verb(&["delete", "--force"]).ok();
    assert!(events.wait().expect("wait").success());
}

#[test]
fn a_stopped_container_has_none() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["true"]);
    let _ = bundle.verb(&["run", "--keep"]).ok();
    let ran = bundle.verb(&["events", "--stats"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("is not running"),
        "{}",
        ran.stderr
    );
}
