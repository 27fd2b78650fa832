//! Who is kept from answering holds nobody up for ever: neither a start nor a removal.

use std::io::{Read as _, Seek as _};
use std::time::{Duration, Instant};

use berth_tests::{Berth, HANG, Need, Output, Shim, eventually, require};

/// Runs `berth ARGUMENTS`; its output, or none when it hangs and had to be killed, with every shim.
fn within_reason(berth: &Berth, arguments: &[&str]) -> Option<Output> {
    // A file: what the command starts may outlive it and would keep a pipe open.
    let mut log = tempfile::tempfile().expect("make a file");
    let mut command = berth
        .command(arguments)
        .stderr(log.try_clone().expect("duplicate a descriptor"))
        .spawn()
        .expect("start berth");
    let deadline = Instant::now() + HANG;
    loop {
        if let Some(status) = command.try_wait().expect("wait") {
            let mut stderr = String::new();
            log.rewind().expect("rewind");
            log.read_to_string(&mut stderr).expect("read");
            return Some(Output {
                code: status.code().unwrap_or(-1),
                stdout: String::new(),
                stderr,
            });
        }
        if Instant::now() > deadline {
            let _ = command.kill();
            let _ = command.wait();
            for pid in berth.shims() {
                let pid = rustix::process::Pid::from_raw(pid).expect("pids are positive");
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_container_that_stops_who_joins_its_pid_namespace_cannot_hold_up_their_start() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let script = "echo ready; while :; do kill -STOP -1 2>/dev/null; done";
    let (hostile, _) = Shim::run(&berth, &[], &["sh", "-c", script]);
    eventually("it stops what it can see", || {
        berth.run(["logs", &hostile]).stdout == "ready\n"
    });
    let joined = format!("--pid=container:{hostile}");
    let command = [
        "run",
        "-d",
        "--rm",
        "--network=none",
        &joined,
        "busybox",
        "sleep",
        "600",
    ];
    let mut told = false;
    // One may get past it, and is stopped as a program then.
    for _ in 0..5 {
        let ran = within_reason(&berth, &command).expect("a start that hangs");
        told = ran.code == 125 && ran.stderr.contains("said nothing for 10s during setup");
        assert!(told || ran.code == 0, "{ran:?}");
        if told {
            break;
        }
    }
    assert!(told, "none was stopped while it was made");
    let removed = within_reason(&berth, &["rm", "-f", &hostile]).expect("a removal that hangs");
    assert_eq!(removed.code, 0, "{removed:?}");
}

#[test]
fn a_shim_that_cannot_hear_is_done_without_by_force_alone() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let (deaf, shim) = Shim::run(&berth, &[], &["sleep", "600"]);
    let pid = rustix::process::Pid::from_raw(shim.pid).expect("pids are positive");
    eventually("whoever started it has left", || {
        let held = shim.descriptors();
        std::thread::sleep(Duration::from_millis(200));
        shim.descriptors() == held
    });
    // What it holds stays open; the next number is one too high for it. Not zero, or poll(2) would refuse too.
    let next = (0..).find(|fd| std::fs::symlink_metadata(format!("/proc/{}/fd/{fd}", shim.pid)).is_err());
    let all = rustix::process::Rlimit {
        current: next,
        maximum: next,
    };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, all).expect("prlimit");
    let (stopped, shim) = Shim::run(&berth, &["--restart=always"], &["sleep", "600"]);
    let pid = rustix::process::Pid::from_raw(shim.pid).expect("pids are positive");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stop the shim");

    let remove = |id: &str| {
        let removed = within_reason(&berth, &["rm", "-f", id]).expect("a removal that hangs");
        assert_eq!(removed.code, 0, "{removed:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| remove(&stopped));
        let asked = within_reason(&berth, &["kill", &deaf]).expect("a kill that hangs");
        let said = &asked.stderr;
        assert!(
            asked.code == 1 && said.contains("says nothing") && said.contains("berth rm --force"),
            "{asked:?}"
        );
        remove(&deaf);
    });
    assert_eq!(berth.run(["ps", "-aq"]).ok(), "");
    assert_eq!(berth.left(), Vec::<String>::new());
}
