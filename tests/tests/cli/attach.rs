//! Streams of a running container: input through a pipe, `attach`, and signals passed on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

use berth_tests::{Berth, Output};

use crate::fixture::{berth, eventually, field, remove_all};

/// `berth ARGUMENTS` with pipes on all three streams.
fn piped(berth: &Berth, arguments: &[&str]) -> Child {
    berth
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start berth")
}

fn signal(process: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(process);
    rustix::process::kill_process(pid, signal).expect("signal berth");
}

#[test]
fn input_is_piped_to_run_only_with_i() {
    let Some(berth) = berth() else { return };
    assert_eq!(
        berth.feed("x\n", ["run", "--rm", "-i", "busybox", "cat"]).ok(),
        "x"
    );
    assert_eq!(berth.feed("x\n", ["run", "--rm", "busybox", "cat"]).ok(), "");
    let long = "y".repeat(1_000_000);
    assert_eq!(
        berth
            .feed(&long, ["run", "--rm", "-i", "busybox", "wc", "-c"])
            .ok(),
        "1000000"
    );
    // Who does not read its input ends all the same, and its code is heard although input was on its way.
    let deaf = [
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "exit 9",
    ];
    for _ in 0..20 {
        let unread = berth.feed(&long, deaf);
        assert_eq!(unread.code, 9, "{}", unread.stderr);
    }
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn much_output_arrives_whole() {
    let Some(berth) = berth() else { return };
    let ran = berth.run(["run", "--rm", "busybox", "seq", "200000"]);
    assert_eq!(ran.stdout.lines().count(), 200_000);
    assert!(ran.stdout.ends_with("200000\n"));
}

#[test]
fn attached_streams_can_be_chosen() {
    let Some(berth) = berth() else { return };
    let script = ["busybox", "sh", "-c", "echo out; echo err >&2"];
    let ran = berth.run(["run", "--rm", "-a", "stdout"].iter().chain(&script));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", ""));
    let ran = berth.run(["run", "--rm", "-a", "STDERR"].iter().chain(&script));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "err\n"));
    let both = berth.run(["run", "--rm", "-d", "-a", "stdout"].iter().chain(&script));
    assert_eq!(both.code, 125);
}

#[test]
fn attach_joins_input_output_and_code() {
    let Some(berth) = berth() else { return };
    let script = "echo ready; while read line; do echo got $line; done; exit 6";
    let _ = berth
        .run([
            "run", "-d", "-i", "--name", "echoing", "busybox", "sh", "-c", script,
        ])
        .ok();
    eventually("it is ready", || {
        berth.run(["logs", "echoing"]).stdout == "ready\n"
    });
    let mut attached = piped(&berth, &["attach", "echoing"]);
    let mut stdin = attached.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(attached.stdout.take().expect("a pipe")).lines();
    stdin.write_all(b"one\n").expect("write");
    assert_eq!(lines.next().expect("a line").expect("text"), "got one");
    // A second one sees the output, too.
    let mut watching = piped(&berth, &["attach", "--no-stdin", "echoing"]);
    let watched = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    let (told, heard) = std::sync::mpsc::channel();
    let reader =
        std::thread::spawn(move || watched.map_while(Result::ok).try_for_each(|line| told.send(line)));
    eventually("what is typed reaches both", || {
        stdin.write_all(b"two\n").expect("write");
        lines.next().expect("a line").expect("text") == "got two"
            && heard.recv_timeout(std::time::Duration::from_millis(100)) == Ok("got two".to_owned())
    });
    let _ = berth.run(["stop", "-t", "0", "echoing"]).ok();
    assert_eq!(attached.wait().expect("wait").code(), Some(137));
    assert_eq!(watching.wait().expect("wait").code(), Some(137));
    reader
        .join()
        .expect("the reader ends with the pipe")
        .expect("we listen");
    let stopped = berth.run(["attach", "echoing"]);
    assert_eq!(stopped.code, 1);
    assert!(stopped.stderr.contains("echoing"), "{}", stopped.stderr);
    remove_all(&berth);
}

#[test]
fn detached_input_stays_open_for_the_next_who_attaches() {
    let Some(berth) = berth() else { return };
    let script = "while read line; do echo got $line; done; echo end";
    let _ = berth
        .run(["run", "-d", "-i", "--name", "open", "busybox", "sh", "-c", script])
        .ok();
    for word in ["first", "second"] {
        let mut attached = piped(&berth, &["attach", "--sig-proxy=false", "open"]);
        let mut lines = BufReader::new(attached.stdout.take().expect("a pipe")).lines();
        let stdin = attached.stdin.as_mut().expect("a pipe");
        stdin.write_all(format!("{word}\n").as_bytes()).expect("write");
        assert_eq!(
            lines.next().expect("a line").expect("text"),
            format!("got {word}")
        );
        // Killed, not closed: the end of our input would be the container's.
        attached.kill().expect("kill berth");
        let _ = attached.wait();
    }
    assert_eq!(field(&berth, "open", "/State/Status"), "running");
    remove_all(&berth);
}

#[test]
fn signals_reach_the_container_of_an_attached_run() {
    let Some(berth) = berth() else { return };
    let script =
        "trap 'echo term; exit 8' TERM; trap 'echo int' INT; echo ready; while :; do sleep 0.1; done";
    let mut run = piped(
        &berth,
        &["run", "--name", "trapping", "busybox", "sh", "-c", script],
    );
    let mut lines = BufReader::new(run.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    signal(&run, rustix::process::Signal::INT);
    assert_eq!(lines.next().expect("a line").expect("text"), "int");
    signal(&run, rustix::process::Signal::TERM);
    assert_eq!(lines.next().expect("a line").expect("text"), "term");
    assert_eq!(run.wait().expect("wait").code(), Some(8));
    remove_all(&berth);
}

#[test]
fn without_the_proxy_a_signal_ends_berth_alone() {
    let Some(berth) = berth() else { return };
    let script = "echo ready; sleep 600";
    let mut run = piped(
        &berth,
        &[
            "run",
            "--sig-proxy=false",
            "--name",
            "untouched",
            "busybox",
            "sh",
            "-c",
            script,
        ],
    );
    let mut lines = BufReader::new(run.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    signal(&run, rustix::process::Signal::TERM);
    let _ = run.wait().expect("wait");
    assert_eq!(field(&berth, "untouched", "/State/Status"), "running");
    remove_all(&berth);
}

#[test]
fn start_attaches_when_asked() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run([
            "create",
            "-i",
            "--name",
            "made",
            "busybox",
            "sh",
            "-c",
            "cat; exit 5",
        ])
        .ok();
    let ran: Output = berth.feed("typed\n", ["start", "-a", "-i", "made"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "typed\n"));
    let two = berth.run(["start", "-a", "made", "other"]);
    assert_eq!(two.code, 1);
    assert!(two.stderr.contains("one container"), "{}", two.stderr);
    remove_all(&berth);
}
