//! Guards against known ways out: each test fails when its guard is taken away.

use std::os::fd::AsRawFd;

use berth_tests::{Bundle, Need, require};

/// CVE-2024-21626: neither a leaked descriptor nor a working directory through one.
#[test]
fn no_descriptor_reaches_the_program_that_was_not_passed() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"]);
    let host = std::fs::File::open("/").expect("open");
    // As a careless caller leaves it: open, and not close-on-exec.
    rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::empty()).expect("fcntl");
    let listed = bundle.verb(&["run"]).ok();
    // 3 is the directory ls itself reads.
    assert_eq!(listed.trim(), "0 1 2 3");
    let exec = Bundle::new(&["sleep", "1000"]);
    let _ = exec.verb(&["run", "--detach"]).ok();
    assert_eq!(
        exec.exec(&["ls", "/proc/self/fd"])
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
    drop(host);
}

/// CVE-2024-21626, the other half.
#[test]
fn a_working_directory_outside_the_root_is_refused() {
    if !require(&[Need::Root]) {
        return;
    }
    let host = std::fs::File::open("/").expect("open");
    rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::empty()).expect("fcntl");
    let mut bundle = Bundle::new(&["ls", "/"]);
    bundle.config["process"]["cwd"] = format!("/proc/self/fd/{}", host.as_raw_fd()).into();
    let ran = bundle.verb(&["run", "--preserve-fds", "0"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stderr.contains("process.cwd"), "{}", ran.stderr);
    bundle.assert_clean();
}

/// CVE-2019-5736: what a process inside could keep of a runtime process cannot be opened for writing when that ends.
#[test]
fn the_runtimes_own_file_is_out_of_reach() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    // A copy nobody else executes: otherwise "text busy" would hide a missing guard.
    let copy = bundle.path().join("berth-runtime");
    berth_tests::berth::copy_program(&berth_tests::binary("berth-runtime"), &copy);
    let _ = bundle.command(&[]);
    let mut command = std::process::Command::new(&copy);
    command
        .arg("--root")
        .arg(bundle.state())
        .args(["run", &bundle.id])
        .current_dir(bundle.path());
    // A foreground run stays: it is the process to look at.
    let mut run = command.spawn().expect("start");
    for _ in 0..500 {
        if bundle.verb(&["state"]).code == 0 && bundle.state_field("status") == "running" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let kept = rustix::fs::open(
        format!("/proc/{}/exe", run.id()),
        flags,
        rustix::fs::Mode::empty(),
    );
    let _ = bundle.output(&["kill", &bundle.id, "KILL"]);
    let code = run.wait().expect("wait").code();
    let kept = kept.expect("the running program's file");
    let path = format!("/proc/self/fd/{}", kept.as_raw_fd());
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|e| e.raw_os_error());
    assert_eq!(opened.err().flatten(), Some(libc::EROFS));
    assert_eq!(code, Some(137));
}

/// CVE-2024-40635: -1 means "leave as it is" to the kernel.
#[test]
fn the_last_uid_is_not_root() {
    if !require(&[Need::Root]) {
        return;
    }
    for key in ["uid", "gid"] {
        let mut bundle = Bundle::new(&["id"]);
        bundle.config["process"]["user"][key] = u32::MAX.into();
        let ran = bundle.verb(&["run"]);
        assert!(
            ran.code == 1 && ran.stderr.contains(&format!("process.user.{key}")),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn passed_descriptors_arrive_and_closed_ones_are_an_error() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["true"]);
    let ran = bundle.verb(&["run", "--preserve-fds", "900"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("it is not open"),
        "{}",
        ran.stderr
    );
}
