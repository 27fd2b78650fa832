//! The API of berth-vmm before a machine runs: no KVM is needed for that. `vm_vmm_api.rs` goes on from there.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

use berth_tests::{Need, VmmApi, eventually, require};

fn start(flags: &[&str]) -> VmmApi {
    VmmApi::start(&berth_tests::binary("berth-vmm"), flags)
}

fn run(flags: &[&str]) -> Output {
    Command::new(berth_tests::binary("berth-vmm"))
        .args(flags)
        .output()
        .expect("run berth-vmm")
}

/// Status and body, as curl reports them.
fn curl(socket: &Path, arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--write-out",
            " %{http_code}",
            "--unix-socket",
        ])
        .arg(socket)
        .args(arguments)
        .output()
        .expect("run curl");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn statuses_are_firecrackers() {
    let vmm = start(&["--id", "some-vm"]);
    let (status, instance) = vmm.ask("GET", "/", "");
    assert_eq!(
        (status, &instance["state"], &instance["id"]),
        (200, &"Not started".into(), &"some-vm".into())
    );
    let machine = vmm.ask("GET", "/machine-config", "").1;
    assert_eq!(
        (&machine["vcpu_count"], &machine["mem_size_mib"]),
        (&1.into(), &128.into())
    );
    assert!(vmm.ask("GET", "/version", "").1["firecracker_version"].is_string());

    vmm.done("PUT", "/boot-source", r#"{"kernel_image_path": "/etc/hostname"}"#);
    vmm.done(
        "PUT",
        "/machine-config",
        r#"{"vcpu_count": 2, "mem_size_mib": 256}"#,
    );
    vmm.done("PATCH", "/machine-config", r#"{"mem_size_mib": 512}"#);
    vmm.done(
        "PUT",
        "/drives/root",
        r#"{"drive_id": "root", "path_on_host": "/etc/hostname", "is_root_device": true}"#,
    );
    vmm.done(
        "PUT",
        "/network-interfaces/eth0",
        r#"{"iface_id": "eth0", "host_dev_name": "tap0"}"#,
    );
    vmm.done("PUT", "/vsock", r#"{"guest_cid": 3, "uds_path": "/tmp/v"}"#);
    vmm.done("PUT", "/entropy", "{}");
    vmm.done(
        "PUT",
        "/balloon",
        r#"{"amount_mib": 512, "deflate_on_oom": false}"#,
    );
    vmm.done("PUT", "/cpu-config", r#"{"kvm_capabilities": ["!56"]}"#);
    vmm.done("PUT", "/logger", r#"{"level": "Debug", "show_level": true}"#);
    let config = vmm.ask("GET", "/vm/config", "").1;
    assert_eq!(config["machine-config"]["mem_size_mib"], 512);
    assert_eq!(config["drives"][0]["drive_id"], "root");
    assert_eq!(config["network-interfaces"][0]["host_dev_name"], "tap0");
    assert_eq!(config["balloon"], vmm.ask("GET", "/balloon", "").1);

    for (method, path, body, why) in [
        (
            "PATCH",
            "/machine-config",
            r#"{"mem_size_mib": 511}"#,
            "balloon.amount_mib: 512 MiB are more",
        ),
        ("PATCH", "/machine-config", r#"{"vcpu_count": 33}"#, "vcpu_count"),
        (
            "PUT",
            "/machine-config",
            r#"{"vcpu_count": 1}"#,
            "missing field `mem_size_mib` at line 1 column 17.",
        ),
        (
            "PUT",
            "/boot-source",
            r#"{"kernel_image_path": "/nowhere"}"#,
            "No such file or directory",
        ),
        (
            "PUT",
            "/drives/b",
            r#"{"drive_id": "b", "path_on_host": "/etc/hostname", "is_root_device": true}"#,
            "A root block device already exists",
        ),
        (
            "PUT",
            "/network-interfaces/b",
            r#"{"iface_id": "b", "host_dev_name": "tap0"}"#,
            "already in use: tap0",
        ),
        (
            "PUT",
            "/metrics",
            r#"{"metrics_path": "/tmp/m"}"#,
            "Reinitialization of metrics not allowed.",
        ),
        (
            "PUT",
            "/nothing",
            "{}",
            "Invalid request method and/or path: PUT nothing.",
        ),
        ("PUT", "/vsock", "", "Empty PUT request."),
        (
            "PATCH",
            "/vm",
            r#"{"state": "Paused"}"#,
            "The requested operation is not supported before starting the microVM.",
        ),
        ("PUT", "/mmds", "{}", "not supported: mmds"),
        (
            "PUT",
            "/snapshot/load",
            r#"{"snapshot_path": "/s", "mem_file_path": "/m"}"#,
            "Loading a microVM snapshot not allowed after configuring boot-specific resources.",
        ),
        (
            "PUT",
            "/snapshot/create",
            r#"{"snapshot_path": "/s", "mem_file_path": "/m"}"#,
            "The requested operation is not supported before starting the microVM.",
        ),
        // The network is not there yet; when it is, what cannot be booted is.
        ("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#, ""),
    ] {
        let said = vmm.refused(method, path, body);
        assert!(said.contains(why), "{method} {path}: {said}");
    }
    assert_eq!(
        vmm.ask("GET", "/vm/config", "").1,
        config,
        "what is refused changes nothing"
    );
    let log = vmm.text("log");
    assert!(
        log.contains("[some-vm:main:INFO] the API received \"PATCH\" \"/vm\" with body"),
        "{log}"
    );
    assert!(log.contains("ERROR] it was refused: "), "{log}");
}

#[test]
fn curl_is_understood() {
    if !require(&[Need::Program("curl")]) {
        return;
    }
    let vmm = start(&["--http-api-max-payload-size", "40000"]);
    let (socket, url) = (vmm.socket(), "http://localhost/machine-config");
    let put = curl(
        &socket,
        &["-X", "PUT", url, "-d", r#"{"vcpu_count": 2, "mem_size_mib": 64}"#],
    );
    assert_eq!(put, " 204");
    assert!(curl(&socket, &[url]).starts_with(r#"{"vcpu_count":2,"mem_size_mib":64,"#));
    // Both over one connection.
    let twice = curl(&socket, &[url, "http://localhost/version"]);
    assert!(
        twice.contains("vcpu_count") && twice.contains("firecracker_version"),
        "{twice}"
    );
    let expect = ["-X", "PUT", url, "-H", "Expect: 100-continue", "-d"];
    let body = |size: usize| format!(r#"{{"vcpu_count": 2, "mem_size_mib": 64{}}}"#, " ".repeat(size));
    assert_eq!(curl(&socket, &[&expect[..], &[&body(39_000)]].concat()), " 204");
    let large = curl(&socket, &[&expect[..], &[&body(40_000)]].concat());
    assert!(
        large.contains("larger than the limit of 40000 allowed by server.") && large.contains(" 400"),
        "{large}"
    );
    let without_waiting = ["-X", "PUT", url, "-H", "Expect:", "-d", &body(100_000)];
    let large = curl(&socket, &without_waiting);
    assert!(
        large.contains("larger than the limit of 40000") && large.contains(" 400"),
        "{large}"
    );
    let old = curl(
        &socket,
        &["-i", "-X", "PATCH", url, "-d", r#"{"cpu_template": "None"}"#],
    );
    assert!(old.contains("Deprecation: true"), "{old}");
}

#[test]
fn the_socket_is_ours_alone_and_goes_with_the_process() {
    let vmm = start(&[]);
    let taken = run(&["--api-sock", vmm.socket().to_str().unwrap()]);
    let text = String::from_utf8_lossy(&taken.stderr);
    assert_eq!(taken.status.code(), Some(1));
    assert!(
        text.contains("Address already in use") && text.contains("another microVM"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(vmm.ask("GET", "/", "").0, 200);

    let directory = tempfile::tempdir().unwrap();
    let (socket, config) = (directory.path().join("api"), directory.path().join("vm.json"));
    std::fs::write(&config, r#"{"boot-source": {"kernel_image_path": "/nowhere"}}"#).unwrap();
    let failed = run(&[
        "--api-sock",
        socket.to_str().unwrap(),
        "--config-file",
        config.to_str().unwrap(),
    ]);
    let text = String::from_utf8_lossy(&failed.stderr);
    assert!(text.contains("/nowhere") || text.contains("/dev/kvm"), "{text}");
    assert!(!socket.exists());
}

#[test]
fn flags_that_ask_for_what_is_not_there_are_refused_by_name() {
    for flags in [
        &["--boot-timer"][..],
        &["--seccomp-filter", "/f"],
        &["--metadata", "/m"],
        &["--mmds-size-limit", "1"],
        &["--enable-pci"],
        &["--cgroup-version", "2"],
        &["--daemonize"],
        &["--chroot-base-dir", "/srv"],
    ] {
        let output = run(flags);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(153), "{text}");
        assert!(text.contains(&format!("not supported: {}: ", flags[0])), "{text}");
    }
    let version = run(&["--snapshot-version"]);
    let number = String::from_utf8_lossy(&version.stdout).trim().parse::<u32>();
    assert!(version.status.code() == Some(0) && number.is_ok(), "{number:?}");
    for (flags, words) in [
        (&["--id", "a b"][..], "letters, digits and '-'"),
        (&["--level", "loud"], "loud"),
        (&["--no-api"], "--config-file"),
        (&["--no-jail", "--uid", "1"], "--uid"),
        (&["--parent-cgroup", "../x"], "leaves its hierarchy"),
        (&["--cgroup", "pids.max"], "FILE=VALUE"),
        (&["--resource-limit", "nproc=1"], "no-file=NUMBER"),
    ] {
        let output = run(flags);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(153) && text.contains(words),
            "{text}"
        );
    }
}

#[test]
fn clients_without_number_and_without_manners_stop_nobody() {
    let vmm = start(&[]);
    let connect = || UnixStream::connect(vmm.socket()).expect("it listens");
    let mut silent: Vec<UnixStream> = (0..10).map(|_| connect()).collect();
    let mut answer = String::new();
    connect().read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    silent.truncate(1);
    eventually("there is a place again", || {
        let mut one = connect();
        let _ = one.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        one.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200 ")
    });
    // Asks and asks, and never listens.
    let mut rude = connect();
    rude.set_nonblocking(true).unwrap();
    while rude
        .write(&b"GET /vm/config HTTP/1.1\r\n\r\n".repeat(100))
        .is_ok()
    {}
    for nonsense in [&b"\0\0\0\0"[..], b"GET / HTTP/9.9\r\n\r\n", &[b'x'; 100_000]] {
        let mut one = connect();
        let _ = one.write_all(nonsense);
        let mut answer = String::new();
        // Who writes on for too long finds a closed connection behind the answer.
        let _ = one.read_to_string(&mut answer);
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("fault_message"),
            "{answer}"
        );
    }
    assert_eq!(vmm.ask("GET", "/", "").0, 200);
}

/// A process without descriptors for its clients answers again when it has some, and does not spin meanwhile.
#[test]
fn few_descriptors_are_enough() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("few");
    let program = berth_tests::binary("berth-vmm");
    std::fs::write(
        &script,
        format!("#!/bin/sh\nulimit -n 14\nexec {} \"$@\"\n", program.display()),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let vmm = VmmApi::start(&script, &[]);
    let connect = || UnixStream::connect(vmm.socket()).expect("it listens");
    let held: Vec<UnixStream> = (0..10).map(|_| connect()).collect();
    let mut refused = 0;
    for mut one in &held {
        one.set_nonblocking(true).unwrap();
        eventually("it is accepted, or sent away", || {
            let _ = one.write(b"GET / HTTP/1.1\r\n\r\n");
            match one.read(&mut [0; 4096]) {
                Ok(0) => {
                    refused += 1;
                    true
                }
                Ok(_) => true,
                Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
            }
        });
    }
    assert!(refused > 0, "14 descriptors are too few for 10 clients");
    drop(held);
    eventually("it answers again", || {
        let mut one = connect();
        let _ = one.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        one.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200 ")
    });
}
