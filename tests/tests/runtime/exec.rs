//! `exec`.

use berth_tests::{Bundle, Need, require};

fn running() -> Bundle {
    let bundle = Bundle::new(&["sleep", "1000"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    bundle
}

#[test]
fn a_second_process_shares_namespaces_and_cgroup() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running();
    for name in ["ipc", "mnt", "net", "pid", "uts", "cgroup"] {
        let path = format!("/proc/self/ns/{name}");
        let inside = bundle.exec(&["readlink", &path]);
        assert_eq!(
            inside,
            bundle.exec(&["readlink", &format!("/proc/1/ns/{name}")]),
            "{name}"
        );
    }
    assert_eq!(
        bundle.exec(&["cat", "/proc/self/cgroup"]),
        bundle.exec(&["cat", "/proc/1/cgroup"])
    );
    assert_eq!(bundle.exec(&["hostname"]), "box");
}

#[test]
fn flags_change_the_process() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running();
    let id = bundle.id.as_str();
    let ran = bundle.output(&[
        "exec",
        "--cwd",
        "/tmp",
        "--env",
        "A=b c",
        "--user",
        "1000:7",
        "-g",
        "9",
        id,
        "sh",
        "-c",
        "pwd; echo $A; id -u; id -G; echo $HOME; exit 9",
    ]);
    assert_eq!(ran.code, 9);
    assert_eq!(ran.stdout, "/tmp\nb c\n1000\n7 9\n/tmp\n");
}

#[test]
fn users_are_numbers() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running();
    for user in ["root", "-1", "4294967295", "4294967296", "1:", "1000x"] {
        let ran = bundle.output(&["exec", &format!("--user={user}"), &bundle.id, "true"]);
        assert_eq!(ran.code, 255, "{user}: {}", ran.stderr);
    }
}

#[test]
fn added_capabilities_are_never_inheritable() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running();
    let status = bundle
        .output(&[
            "exec",
            "--cap",
            "CAP_NET_RAW",
            &bundle.id,
            "cat",
            "/proc/self/status",
        ])
        .ok();
    let set = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap_or("x"), 16).expect("hexadecimal")
    };
    assert_eq!(set("CapInh"), 0);
    assert_eq!(set("CapEff") >> 13 & 1, 1);
}

#[test]
fn a_missing_program_is_255_and_the_container_goes_on() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running();
    let ran = bundle.output(&["exec", &bundle.id, "nope"]);
    assert_eq!(ran.code, 255);
    assert!(
        ran.stderr.contains("executable file not found in $PATH"),
        "{}",
        ran.stderr
    );
    assert_eq!(bundle.state_field("status"), "running");
}

#[test]
fn a_process_file_replaces_the_flags() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running();
    let file = bundle.path().join("process.json");
    let process = serde_json::json!({"args": ["sh", "-c", "id -u; pwd"], "cwd": "/bin", "env": ["PATH=/bin"],
        "user": {"uid": 5, "gid": 5}});
    std::fs::write(&file, process.to_string()).expect("write");
    let text = bundle
        .output(&["exec", "--process", &file.display().to_string(), &bundle.id])
        .ok();
    assert_eq!(text, "5\n/bin");
}

#[test]
fn a_program_the_kernel_refuses_leaves_no_pid_file() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = running();
    let program = bundle.rootfs().join("bin/broken");
    std::fs::write(&program, "\x7fELF and no more").expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("chmod");
    let file = bundle.path().join("pid");
    let flag = format!("--pid-file={}", file.display());
    let ran = bundle.output(&["exec", &flag, &bundle.id, "/bin/broken"]);
    assert_eq!(ran.code, 255);
    assert!(ran.stderr.contains("exec format error"), "{}", ran.stderr);
    assert!(!file.exists(), "it names a process that never was");
    let _ = bundle
        .output(&["exec", "--detach", &flag, &bundle.id, "sleep", "100"])
        .ok();
    assert!(file.exists());
}
