//! `events`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::fixture::{berth, remove_all};

#[test]
fn the_past_is_told_and_filtered() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run(["run", "--rm", "--name", "brief", "-l", "k=v", "busybox", "true"])
        .ok();
    let _ = berth.run(["volume", "create", "data"]).ok();
    let events = |flags: &[&str]| {
        let bounds = [
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--format",
            "{{.Action}}",
        ];
        berth.run(bounds.iter().chain(flags)).ok().replace('\n', " ")
    };
    assert_eq!(
        events(&["--filter", "type=container", "--filter", "container=brief"]),
        "create start die destroy"
    );
    assert_eq!(events(&["--filter", "type=volume"]), "create");
    crate::fixture::sleeping(&berth, "box", &[]);
    let _ = berth.run(["exec", "box", "sh", "-c", "exit 4"]);
    let _ = berth.run(["exec", "-d", "box", "true"]).ok();
    assert_eq!(
        events(&["--filter", "container=box"]),
        "create start exec_create: sh -c exit 4 exec_start: sh -c exit 4 exec_die exec_create: true exec_start: true"
    );
    assert_eq!(events(&["--filter", "event=exec_die"]), "exec_die");
    assert_eq!(events(&["--filter", "event=die"]), "die");
    let json = berth
        .run([
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "event=die",
            "--format",
            "json",
        ])
        .ok();
    let die: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(die["Actor"]["Attributes"]["exitCode"], "0");
    assert_eq!(die["Actor"]["Attributes"]["name"], "brief");
    let line = berth
        .run([
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "event=die",
        ])
        .ok();
    assert!(
        line.contains(" container die ") && line.contains("name=brief"),
        "{line}"
    );
    assert_ne!(
        berth
            .run(["events", "--until", "0s", "--filter", "nonsense=1"])
            .code,
        0
    );
    let _ = berth
        .run(["create", "--name", "other", "busybox", "sleep", "600"])
        .ok();
    for verb in [
        &["restart", "-t", "0", "other"][..],
        &["restart", "-t", "0", "other"],
        &["stop", "-t", "0", "other"],
        &["stop", "other"],
    ] {
        let _ = berth.run(verb).ok();
    }
    assert_eq!(
        events(&["--filter", "container=other"]),
        "create start restart kill die stop start restart kill die stop",
        "docker's; what does not run is not stopped"
    );
    let _ = berth.run(["tag", "busybox", "named:1"]).ok();
    let _ = berth.run(["rmi", "named:1"]).ok();
    assert_eq!(events(&["--filter", "type=image"]), "import tag untag");
}

#[test]
fn the_present_is_told_as_it_happens() {
    let Some(berth) = berth() else { return };
    let mut follower = berth
        .command(["events", "--format", "{{.Action}} {{.Actor.Attributes.name}}"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start berth");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    // Until the follower listens nothing is told; so make events until one is.
    let (told, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            if told.send(line).is_err() {
                break;
            }
        }
    });
    crate::fixture::eventually("the first event is heard", || {
        let _ = berth.run(["volume", "create", "probe"]).code;
        heard.try_recv().is_ok()
    });
    let _ = berth
        .run(["create", "--name", "box", "busybox", "sleep", "600"])
        .ok();
    for verb in ["start", "pause", "unpause"] {
        let _ = berth.run([verb, "box"]).ok();
    }
    let _ = berth.run(["rename", "box", "crate"]).ok();
    let _ = berth.run(["kill", "crate"]).ok();
    let _ = berth.run(["wait", "crate"]).ok();
    let _ = berth.run(["rm", "crate"]).ok();
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.starts_with("destroy")) {
        let patience = std::time::Duration::from_secs(30);
        let line = heard
            .recv_timeout(patience)
            .unwrap_or_else(|_| panic!("after {seen:?}"));
        if line.contains("box") || line.contains("crate") {
            seen.push(line);
        }
    }
    assert_eq!(
        seen,
        [
            "create box",
            "start box",
            "pause box",
            "unpause box",
            "rename crate",
            "kill crate",
            "die crate",
            "destroy crate"
        ]
    );
    follower.kill().expect("kill the follower");
    let _ = follower.wait();
    reader.join().expect("the reader ends with the pipe");
    remove_all(&berth);
}
