//! Processes of exec and of health checks, killed or stopped at any point: none stays behind, and the container still ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_tests::{Berth, HANG, Need, Shim, eventually, require};

fn kill(pid: i32) {
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).expect("a pid"),
        rustix::process::Signal::KILL,
    );
}

fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn checks_killed_at_any_point_leave_no_child_and_the_container_stops() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let flags = ["--health-cmd=true", "--health-interval=50ms"];
    let (id, shim) = Shim::run(&berth, &flags, &["sleep", "600"]);
    let done = AtomicBool::new(false);
    let mut still = true;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Its own child, not the shim's; it may be killed below, or end between two looks.
                berth.run(["exec", &id, "true"]);
            }
        });
        for round in 0..150u64 {
            let deadline = Instant::now() + HANG;
            // Every other time as soon as there are two: an intermediate, and what it cloned and has not told of yet.
            let wanted = 1 + usize::try_from(round % 2).expect("0 or 1");
            while shim.others().len() < wanted && Instant::now() < deadline {
                std::hint::spin_loop();
            }
            if Instant::now() >= deadline {
                still = false;
                break;
            }
            if wanted == 1 {
                // From its first instruction to after its last, in steps.
                let until = Instant::now() + Duration::from_micros(round * 37 % 3000);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            }
            if let Some(&oldest) = shim.others().first() {
                kill(oldest);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    if !still {
        shim.kill();
        panic!("the shim starts no check any more");
    }
    // Checks go on, so children come and go; one that stays is not known to the shim.
    let mut left = shim.others();
    eventually("every child of the shim has ended and was collected", || {
        let now = shim.others();
        left.retain(|pid| now.contains(pid));
        left.is_empty()
    });
    shim.hears(&berth, &["stop", "-t", "0", &id]);
    let _ = berth.run(["rm", &id]).ok();
}

#[test]
fn a_container_that_stops_its_checks_cannot_keep_the_shim_from_obeying() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    // A check that is stopped as a program is killed after its time, and the next gets its chance.
    let flags = [
        "--health-cmd=true",
        "--health-interval=20ms",
        "--health-timeout=500ms",
    ];
    let script = "while :; do kill -STOP -1 2>/dev/null; done";
    let (id, shim) = Shim::run(&berth, &flags, &["sh", "-c", script]);
    eventually("a check is stopped", || {
        shim.others().iter().any(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
                && stat.contains("(berth-shim)")
        })
    });
    shim.hears(&berth, &["stop", "-t", "0", &id]);
    let _ = berth.run(["rm", &id]).ok();
}

#[test]
fn an_orphan_that_has_ended_is_collected_by_the_shim() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    // Without a pid namespace of its own the container's init is nobody's parent but its children's.
    let script = "mkfifo /go; (sh -c 'echo started; read line < /go' &); sleep 600";
    let (id, shim) = Shim::run(&berth, &["--pid=host"], &["sh", "-c", script]);
    eventually("the orphan is the shim's child", || {
        berth.run(["logs", &id]).stdout.contains("started") && shim.others().len() == 1
    });
    let orphan = shim.others()[0];
    let _ = berth.run(["exec", &id, "sh", "-c", "echo > /go"]).ok();
    eventually("it is collected", || !shim.others().contains(&orphan));
    assert!(!is_zombie(orphan), "somebody else's zombie");
    assert_eq!(
        berth.run(["inspect", "--format", "{{.State.Status}}", &id]).ok(),
        "running"
    );
    let _ = berth.run(["rm", "-f", &id]).ok();
}

/// CVE-2019-5736: what a process inside could keep of `berth exec` cannot be opened for writing once that has ended.
#[test]
fn the_file_of_berth_exec_is_out_of_reach() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    // A copy nobody else executes: otherwise "text busy" would hide a missing guard.
    let copy = berth.scratch().join("berth");
    berth_tests::berth::copy_program(&berth_tests::binary("berth"), &copy);
    let (id, _) = Shim::run(&berth, &[], &["sleep", "600"]);
    let mut exec = std::process::Command::new(&copy)
        .arg("--root")
        .arg(berth.root())
        .arg("--state")
        .arg(berth.state())
        .args(["exec", &id, "sh", "-c", "touch /here; exec sleep 600"])
        .spawn()
        .expect("start berth");
    eventually("its process runs", || {
        berth.run(["exec", &id, "test", "-e", "/here"]).code == 0
    });
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let exe = format!("/proc/{}/exe", exec.id());
    let kept = rustix::fs::open(exe, flags, rustix::fs::Mode::empty()).expect("the running program's file");
    exec.kill().expect("kill berth exec");
    exec.wait().expect("wait for berth exec");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
    let opened = std::fs::OpenOptions::new().write(true).open(path);
    assert_eq!(
        opened.map_err(|e| e.raw_os_error()).err().flatten(),
        Some(libc::EROFS)
    );
    let _ = berth.run(["rm", "-f", &id]).ok();
}
