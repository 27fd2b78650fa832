//! The life of a container: create, start, stop, kill, restart, pause, rename, wait, rm.

use std::process::Stdio;

use crate::fixture::{berth, eventually, field, remove_all, sleeping};

#[test]
fn create_then_start_then_rm() {
    let Some(berth) = berth() else { return };
    let id = berth
        .run(["create", "--name", "later", "busybox", "echo", "ran"])
        .ok();
    assert_eq!(field(&berth, "later", "/State/Status"), "created");
    assert_eq!(berth.run(["ps", "-q"]).ok(), "");
    assert_eq!(berth.run(["start", "-a", &id[..8]]).ok(), "ran");
    assert_eq!(field(&berth, "later", "/State/Status"), "exited");
    assert_eq!(berth.run(["start", "later"]).ok(), "later");
    assert_eq!(berth.run(["wait", "later"]).ok(), "0");
    assert_eq!(berth.run(["logs", "later"]).ok(), "ran\nran");
    assert_eq!(berth.run(["rm", "later"]).ok(), "later");
    let gone = berth.run(["start", "later"]);
    assert_eq!(
        (gone.code, gone.stderr.contains("no such container: later")),
        (1, true)
    );
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn removing_by_force_what_is_not_there_is_no_failure() {
    let Some(berth) = berth() else { return };
    let _ = berth.run(["create", "--name", "there", "busybox", "true"]).ok();
    let ran = berth.run(["rm", "-f", "gone", "there"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "there\n"));
    assert!(ran.stderr.contains("no such container: gone"), "{}", ran.stderr);
    let ran = berth.run(["rmi", "-f", "gone:1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert!(ran.stderr.contains("no such image: gone:1"), "{}", ran.stderr);
    assert_eq!(berth.left(), Vec::<String>::new());
}

/// docker's: the codes of a command that cannot be run are those of `run` and `exec`.
#[test]
fn a_start_that_fails_is_1_and_names_whom() {
    let Some(berth) = berth() else { return };
    for name in ["one", "two"] {
        let _ = berth.run(["create", "--name", name, "busybox", "nonesuch"]).ok();
    }
    let attached = berth.run(["start", "-a", "one"]);
    assert_eq!(attached.code, 1, "{attached:?}");
    assert!(attached.stderr.contains("nonesuch"), "{}", attached.stderr);
    assert_eq!(field(&berth, "one", "/State/ExitCode"), 127);
    sleeping(&berth, "three", &[]);
    let several = berth.run(["start", "one", "three", "two"]);
    assert_eq!((several.code, several.stdout.as_str()), (1, "three\n"));
    let last = several.stderr.lines().last();
    assert_eq!(last, Some("berth: failed to start containers: one, two"));
    remove_all(&berth);
}

#[test]
fn stop_asks_then_kills() {
    let Some(berth) = berth() else { return };
    let script = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let _ = berth
        .run(["run", "-d", "--name", "polite", "busybox", "sh", "-c", script])
        .ok();
    eventually("it is ready", || {
        berth.run(["logs", "polite"]).stdout == "ready\n"
    });
    assert_eq!(berth.run(["stop", "polite"]).ok(), "polite");
    assert_eq!(field(&berth, "polite", "/State/ExitCode"), 5);
    assert_eq!(berth.run(["logs", "polite"]).ok(), "ready\nasked");
    // Stopping what does not run is fine, as docker has it.
    assert_eq!(berth.run(["stop", "polite"]).ok(), "polite");
    sleeping(&berth, "deaf", &[]);
    let _ = berth.run(["stop", "--time", "0", "deaf"]).ok();
    assert_eq!(field(&berth, "deaf", "/State/ExitCode"), 137);
    let several = berth.run(["stop", "polite", "no-such", "deaf"]);
    assert_eq!((several.code, several.stdout.as_str()), (1, "polite\ndeaf\n"));
    assert!(several.stderr.contains("no-such"), "{}", several.stderr);
    remove_all(&berth);
}

#[test]
fn kill_sends_any_signal() {
    let Some(berth) = berth() else { return };
    let script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done";
    let _ = berth
        .run(["run", "-d", "--name", "target", "busybox", "sh", "-c", script])
        .ok();
    eventually("it is ready", || {
        berth.run(["logs", "target"]).stdout == "ready\n"
    });
    for signal in ["HUP", "SIGHUP", "1"] {
        assert_eq!(berth.run(["kill", "--signal", signal, "target"]).ok(), "target");
        eventually("the signal arrived", || {
            let seen = berth.run(["logs", "target"]).stdout.matches("hup").count();
            seen == match signal {
                "HUP" => 1,
                "SIGHUP" => 2,
                _ => 3,
            }
        });
    }
    let bad = berth.run(["kill", "-s", "NOPE", "target"]);
    assert_ne!(bad.code, 0);
    assert!(bad.stderr.contains("NOPE"), "{}", bad.stderr);
    let _ = berth.run(["kill", "target"]).ok();
    assert_eq!(berth.run(["wait", "target"]).ok(), "137");
    let stopped = berth.run(["kill", "target"]);
    assert_eq!(stopped.code, 1);
    assert!(
        stopped.stderr.contains("target") && stopped.stderr.contains("exited"),
        "{}",
        stopped.stderr
    );
}

#[test]
fn restart_makes_a_new_process() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "again", &[]);
    let _ = berth.run(["exec", "again", "sh", "-c", "echo kept > /file"]).ok();
    let before = field(&berth, "again", "/State/Pid");
    assert_eq!(berth.run(["restart", "-t", "0", "again"]).ok(), "again");
    assert_ne!(field(&berth, "again", "/State/Pid"), before);
    assert_eq!(berth.run(["exec", "again", "cat", "/file"]).ok(), "kept");
    let _ = berth.run(["stop", "-t", "0", "again"]).ok();
    let _ = berth.run(["restart", "again"]).ok();
    assert_eq!(field(&berth, "again", "/State/Status"), "running");
    remove_all(&berth);
}

#[test]
fn pause_freezes_and_unpause_thaws() {
    let Some(berth) = berth() else { return };
    let script = "n=0; while :; do n=$((n+1)); echo $n > /n; done";
    let _ = berth
        .run(["run", "-d", "--name", "busy", "busybox", "sh", "-c", script])
        .ok();
    assert_eq!(berth.run(["pause", "busy"]).ok(), "busy");
    assert_eq!(field(&berth, "busy", "/State/Status"), "paused");
    assert!(
        berth
            .run(["ps", "--format", "{{.Status}}"])
            .ok()
            .ends_with("(Paused)")
    );
    let pid = field(&berth, "busy", "/State/Pid");
    let file = format!("/proc/{pid}/root/n");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    let at = read();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(read(), at, "it counts on");
    let refused = berth.run(["exec", "busy", "true"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("paused"), "{}", refused.stderr);
    // It could not end, and who attached could neither.
    let attached = berth.run(["attach", "busy"]);
    assert_eq!(attached.code, 1);
    assert!(attached.stderr.contains("berth unpause"), "{}", attached.stderr);
    let twice = berth.run(["pause", "busy"]);
    assert_eq!(twice.code, 1);
    assert!(twice.stderr.contains("paused"), "{}", twice.stderr);
    assert_eq!(berth.run(["unpause", "busy"]).ok(), "busy");
    eventually("it counts on", || read() != at);
    // A paused one can be stopped and removed.
    let _ = berth.run(["pause", "busy"]).ok();
    let _ = berth.run(["rm", "-f", "busy"]).ok();
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn rename_keeps_the_container_and_frees_the_name() {
    let Some(berth) = berth() else { return };
    let id = sleeping(&berth, "old-name", &[]);
    let _ = berth.run(["rename", "old-name", "new-name"]).ok();
    assert_eq!(
        berth
            .run(["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"])
            .ok(),
        format!("{id} new-name")
    );
    sleeping(&berth, "old-name", &[]);
    let taken = berth.run(["rename", "old-name", "new-name"]);
    assert_eq!(taken.code, 1);
    assert!(
        taken.stderr.contains("new-name") && taken.stderr.contains(&id[..12]),
        "{}",
        taken.stderr
    );
    for bad in ["a", "../x", "has space", ""] {
        assert_ne!(berth.run(["rename", "old-name", bad]).code, 0, "{bad:?}");
    }
    remove_all(&berth);
}

#[test]
fn wait_prints_codes_in_order() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "first", &[]);
    let _ = berth
        .run(["run", "-d", "--name", "second", "busybox", "sh", "-c", "exit 3"])
        .ok();
    let mut waiting = berth
        .command(["wait", "first", "second"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start berth");
    assert!(waiting.try_wait().expect("ask").is_none(), "the first runs");
    let _ = berth.run(["kill", "-s", "KILL", "first"]).ok();
    let output = waiting.wait_with_output().expect("wait for berth");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "137\n3\n");
    let missing = berth.run(["wait", "no-such"]);
    assert_eq!(missing.code, 1);
}

#[test]
fn rm_refuses_what_runs_unless_forced() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "running", &["-v", "/anonymous"]);
    let refused = berth.run(["rm", "running"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("running") && refused.stderr.contains("--force"),
        "{}",
        refused.stderr
    );
    assert_eq!(berth.run(["volume", "ls", "-q"]).ok().lines().count(), 1);
    assert_eq!(berth.run(["rm", "-fv", "running"]).ok(), "running");
    assert_eq!(berth.run(["volume", "ls", "-q"]).ok(), "");
    let missing = berth.run(["rm", "running"]);
    assert_eq!(missing.code, 1);
    assert_eq!(
        berth.run(["rm", "-f", "running"]).code,
        0,
        "docker's --force does not mind"
    );
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn prune_removes_what_stopped() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "running", &[]);
    let id = berth.run(["create", "--name", "made", "busybox", "true"]).ok();
    let asked = berth.run(["container", "prune"]);
    assert_ne!(asked.code, 0, "nobody is there to answer");
    for refusal in ["n\n", "\n", "yesterday\n"] {
        let _ = berth.feed(refusal, ["container", "prune"]).ok();
        assert_eq!(berth.run(["ps", "-aq"]).ok().lines().count(), 2, "{refusal:?}");
    }
    // docker's: the answer may come through a pipe.
    let pruned = berth.feed("y\n", ["container", "prune"]).ok();
    assert!(pruned.contains(&id), "{pruned}");
    let id = berth.run(["create", "--name", "made", "busybox", "true"]).ok();
    let pruned = berth.run(["container", "prune", "-f"]).ok();
    assert!(pruned.contains(&id), "{pruned}");
    assert_eq!(berth.run(["ps", "-a", "--format", "{{.Names}}"]).ok(), "running");
    remove_all(&berth);
}
