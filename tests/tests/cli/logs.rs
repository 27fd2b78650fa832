//! `logs`, and how they rotate.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::fixture::{berth, eventually, remove_all};

#[test]
fn streams_stay_apart_and_the_tail_is_the_last_lines() {
    let Some(berth) = berth() else { return };
    let script = "for i in 1 2 3 4 5; do echo line $i; done; echo problem >&2; printf 'no newline'";
    let _ = berth
        .run(["run", "--name", "writer", "busybox", "sh", "-c", script])
        .ok();
    let logs = |flags: &[&str]| berth.run(["logs"].iter().chain(flags).chain(&["writer"]));
    let all = logs(&[]);
    assert_eq!(all.stderr, "problem\n");
    assert_eq!(all.stdout, "line 1\nline 2\nline 3\nline 4\nline 5\nno newline");
    let tail = logs(&["--tail", "2"]);
    assert_eq!(tail.stdout.lines().count() + tail.stderr.lines().count(), 2);
    assert_eq!(logs(&["-n", "0"]).stdout, "");
    assert_eq!(logs(&["--tail", "all"]).stdout, all.stdout);
    assert_eq!(logs(&["--tail", "-1"]).stdout, all.stdout);
    let bad = logs(&["--tail", "few"]);
    assert_eq!(bad.code, 1);
    assert!(bad.stderr.contains("few"), "{}", bad.stderr);
}

#[test]
fn times_are_shown_and_bound_what_is_shown() {
    let Some(berth) = berth() else { return };
    let script = "echo first; sleep 1.2; echo second";
    let _ = berth
        .run(["run", "--name", "writer", "busybox", "sh", "-c", script])
        .ok();
    let logs = |flags: &[&str]| berth.run(["logs"].iter().chain(flags).chain(&["writer"])).ok();
    let stamped = logs(&["-t"]);
    let stamps: Vec<_> = stamped
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(stamps.len(), 2);
    for stamp in &stamps {
        // 2026-01-02T03:04:05.123456789Z
        assert!(
            stamp.len() == 30 && stamp.ends_with('Z') && stamp.as_bytes()[10] == b'T',
            "{stamp}"
        );
    }
    assert_eq!(logs(&["--since", stamps[1]]), "second");
    assert_eq!(logs(&["--until", stamps[0]]), "first");
    assert_eq!(logs(&["--since", "1h"]), "first\nsecond");
    assert_eq!(logs(&["--until", "1h"]), "");
    // Without a zone it is the user's own time; the zones are east and west of UTC in POSIX's way round.
    for (zone, shown) in [
        ("UTC0", "second\n"),
        ("EAST-14", "first\nsecond\n"),
        ("WEST+12", ""),
    ] {
        let since = stamps[1].trim_end_matches('Z');
        let mut command = berth.command(["logs", "--since", since, "writer"]);
        let ran = command.env("TZ", zone).output().expect("start berth");
        assert_eq!(String::from_utf8_lossy(&ran.stdout), shown, "{zone}");
    }
    let bad = berth.run(["logs", "--since", "whenever", "writer"]);
    assert_eq!(bad.code, 1);
    assert!(bad.stderr.contains("whenever"), "{}", bad.stderr);
}

#[test]
fn following_shows_lines_as_they_come_and_ends_with_the_container() {
    let Some(berth) = berth() else { return };
    let script = "echo before; while [ ! -e /go ]; do sleep 0.05; done; echo after";
    let _ = berth
        .run(["run", "-d", "--name", "writer", "busybox", "sh", "-c", script])
        .ok();
    let mut follower = berth
        .command(["logs", "-f", "writer"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start berth");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "before");
    let _ = berth.run(["exec", "writer", "touch", "/go"]).ok();
    assert_eq!(lines.next().expect("a line").expect("text"), "after");
    assert!(lines.next().is_none());
    assert!(follower.wait().expect("wait").success());
    remove_all(&berth);
}

#[test]
fn rotation_bounds_the_disk_and_following_goes_on() {
    let Some(berth) = berth() else { return };
    let script = "while [ ! -e /go ]; do sleep 0.05; done
        for i in $(seq 1000 1999); do echo line $i; [ $((i % 50)) = 0 ] && sleep 0.02; done; sleep 600";
    let id = berth
        .run([
            "run",
            "-d",
            "--name",
            "writer",
            "--log-opt",
            "max-size=8k",
            "--log-opt",
            "max-file=3",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
    let mut follower = berth
        .command(["logs", "-f", "writer"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start berth");
    let _ = berth.run(["exec", "writer", "touch", "/go"]).ok();
    let lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let followed: Vec<_> = lines.map_while(Result::ok).take(1000).collect();
    let want: Vec<_> = (1000..2000).map(|n| format!("line {n}")).collect();
    assert!(
        followed == want,
        "lines were lost: {} of 1000 came",
        followed.len()
    );
    follower.kill().expect("kill the follower");
    let _ = follower.wait();
    let kept = berth.run(["logs", "writer"]).ok();
    assert!(kept.ends_with("line 1999"), "{kept}");
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(berth.root().join("containers").join(&id))
        .expect("list")
        .flatten()
    {
        if entry.file_name().to_string_lossy().contains("log") {
            sizes.push(entry.metadata().expect("metadata").len());
        }
    }
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| *size <= 8192), "{sizes:?}");
    let first = 2000 - kept.lines().count();
    assert_eq!(
        kept.lines().next(),
        Some(format!("line {first}").as_str()),
        "no gap in what is kept"
    );
    remove_all(&berth);
}

#[test]
fn no_log_is_kept_when_none_is_wanted() {
    let Some(berth) = berth() else { return };
    let ran = berth.run([
        "run",
        "--name",
        "mute",
        "--log-driver",
        "none",
        "busybox",
        "echo",
        "said",
    ]);
    assert_eq!(ran.ok(), "said");
    let logs = berth.run(["logs", "mute"]);
    assert_eq!(logs.code, 1);
    assert!(logs.stderr.contains("none"), "{}", logs.stderr);
    for flags in [
        &["--log-driver", "syslog"][..],
        &["--log-opt", "max-size=many"],
        &["--log-opt", "tag=x"],
    ] {
        let refused = berth.run(["run", "--rm"].iter().chain(flags).chain(&["busybox", "true"]));
        assert_eq!(refused.code, 125, "{flags:?}");
        assert!(!refused.stderr.is_empty());
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run(["run", "--name", "writer", "busybox", "seq", "100000"])
        .code;
    let mut reader = berth
        .command(["logs", "writer"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start berth");
    drop(reader.stdout.take());
    let ended = berth_tests::Output::from(reader.wait_with_output().expect("wait"));
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    eventually("the writer is gone", || {
        berth.run(["rm", "-f", "writer"]).code == 0
    });
}

#[test]
fn following_begins_and_ends_where_asked() {
    let Some(berth) = berth() else { return };
    let script = "echo old; while [ ! -e /go ]; do sleep 0.05; done; echo new";
    let _ = berth
        .run(["run", "-d", "--name", "writer", "busybox", "sh", "-c", script])
        .ok();
    eventually("it has begun", || berth.run(["logs", "writer"]).stdout == "old\n");
    // It runs on, but nothing beyond this moment is wanted.
    assert_eq!(berth.run(["logs", "-f", "--until", "0s", "writer"]).ok(), "old");
    let follower = berth
        .command(["logs", "-f", "--tail", "0", "writer"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start berth");
    let _ = berth.run(["exec", "writer", "touch", "/go"]).ok();
    let output = follower.wait_with_output().expect("wait for berth");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    // Attached late on a busy host, it may find the new line written: then that is old, too.
    assert!(shown == "new\n" || shown.is_empty(), "{shown}");
    remove_all(&berth);
}
