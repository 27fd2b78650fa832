//! `inspect`: flags arrive where docker's clients look for them.

use serde_json::{Value, json};

use crate::fixture::{berth, field, remove_all, sleeping};

#[test]
fn every_flag_is_where_docker_shows_it() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run([
            "create",
            "--name",
            "full",
            "-i",
            "-t",
            "-e",
            "A=1",
            "-w",
            "/work",
            "-u",
            "5:6",
            "--hostname",
            "box",
            "--domainname",
            "example.test",
            "-m",
            "64m",
            "--memory-swap",
            "128m",
            "--cpus",
            "1.5",
            "--cpuset-cpus",
            "0",
            "--cpu-shares",
            "512",
            "--pids-limit",
            "99",
            "--cap-add",
            "SYS_TIME",
            "--cap-drop",
            "CHOWN",
            "--security-opt",
            "no-new-privileges",
            "--read-only",
            "--init",
            "--restart",
            "on-failure:3",
            "--stop-signal",
            "USR1",
            "--stop-timeout",
            "7",
            "--health-cmd",
            "true",
            "--health-interval",
            "5s",
            "--health-timeout",
            "2s",
            "--health-retries",
            "4",
            "--health-start-period",
            "9s",
            "-l",
            "k=v",
            "--ulimit",
            "nofile=10:20",
            "--sysctl",
            "net.ipv4.ip_forward=1",
            "--device",
            "/dev/zero:/dev/z:r",
            "--dns",
            "192.0.2.53",
            "--add-host",
            "one:192.0.2.1",
            "--tmpfs",
            "/t:size=1m",
            "-p",
            "127.0.0.1:8080:80",
            "--shm-size",
            "1m",
            "--oom-score-adj",
            "5",
            "--log-opt",
            "max-size=1m",
            "--entrypoint",
            "env",
            "busybox",
            "x",
            "y",
        ])
        .ok();
    for (pointer, want) in [
        ("/Name", json!("/full")),
        ("/Config/Image", json!("busybox")),
        ("/Config/OpenStdin", json!(true)),
        ("/Config/Tty", json!(true)),
        ("/Config/WorkingDir", json!("/work")),
        ("/Config/User", json!("5:6")),
        ("/Config/Hostname", json!("box")),
        ("/Config/Domainname", json!("example.test")),
        ("/Config/Entrypoint", json!(["env"])),
        ("/Config/Cmd", json!(["x", "y"])),
        ("/Config/Labels", json!({"k": "v"})),
        ("/Config/StopSignal", json!("SIGUSR1")),
        ("/Config/StopTimeout", json!(7)),
        ("/Config/Healthcheck/Test", json!(["CMD-SHELL", "true"])),
        ("/Config/Healthcheck/Interval", json!(5_000_000_000_u64)),
        ("/Config/Healthcheck/Timeout", json!(2_000_000_000_u64)),
        ("/Config/Healthcheck/StartPeriod", json!(9_000_000_000_u64)),
        ("/Config/Healthcheck/Retries", json!(4)),
        ("/HostConfig/Memory", json!(64 << 20)),
        ("/HostConfig/MemorySwap", json!(128 << 20)),
        ("/HostConfig/NanoCpus", json!(1_500_000_000_u64)),
        ("/HostConfig/CpusetCpus", json!("0")),
        ("/HostConfig/CpuShares", json!(512)),
        ("/HostConfig/PidsLimit", json!(99)),
        ("/HostConfig/CapAdd/0", json!("SYS_TIME")),
        ("/HostConfig/CapDrop/0", json!("CHOWN")),
        ("/HostConfig/ReadonlyRootfs", json!(true)),
        ("/HostConfig/Init", json!(true)),
        (
            "/HostConfig/RestartPolicy",
            json!({"Name": "on-failure", "MaximumRetryCount": 3}),
        ),
        ("/HostConfig/Ulimits/0/Name", json!("nofile")),
        ("/HostConfig/Ulimits/0/Soft", json!(10)),
        ("/HostConfig/Ulimits/0/Hard", json!(20)),
        ("/HostConfig/Sysctls", json!({"net.ipv4.ip_forward": "1"})),
        ("/HostConfig/Devices/0/PathOnHost", json!("/dev/zero")),
        ("/HostConfig/Devices/0/PathInContainer", json!("/dev/z")),
        ("/HostConfig/Devices/0/CgroupPermissions", json!("r")),
        ("/HostConfig/Dns", json!(["192.0.2.53"])),
        ("/HostConfig/ExtraHosts", json!(["one:192.0.2.1"])),
        ("/HostConfig/PortBindings/80~1tcp/0/HostPort", json!("8080")),
        ("/HostConfig/PortBindings/80~1tcp/0/HostIp", json!("127.0.0.1")),
        ("/HostConfig/ShmSize", json!(1 << 20)),
        ("/HostConfig/OomScoreAdj", json!(5)),
        ("/HostConfig/NetworkMode", json!("bridge")),
        ("/HostConfig/LogConfig/Type", json!("json-file")),
        ("/HostConfig/LogConfig/Config/max-size", json!("1m")),
        ("/HostConfig/Tmpfs/~1t", json!("size=1m")),
        ("/HostConfig/SecurityOpt/0", json!("no-new-privileges")),
        ("/State/Status", json!("created")),
        ("/State/Running", json!(false)),
    ] {
        assert_eq!(field(&berth, "full", pointer), want, "{pointer}");
    }
    remove_all(&berth);
}

#[test]
fn templates_and_kinds() {
    let Some(berth) = berth() else { return };
    let id = sleeping(&berth, "box", &[]);
    let inspect = |flags: &[&str]| berth.run(["inspect"].iter().chain(flags));
    assert_eq!(
        inspect(&["-f", "{{.Id}} {{.State.Running}}", "box"]).ok(),
        format!("{id} true")
    );
    assert_eq!(
        inspect(&["--format", "{{json .Config.Cmd}}", &id[..10]]).ok(),
        "[\"sleep\",\"600\"]"
    );
    assert_eq!(
        inspect(&[
            "-f",
            "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}",
            "box"
        ])
        .ok(),
        "bridge"
    );
    let image: Value = serde_json::from_str(&inspect(&["--type", "image", "busybox"]).ok()).expect("JSON");
    assert!(
        image[0]["RepoTags"].to_string().contains("busybox:latest"),
        "{image}"
    );
    let wrong = inspect(&["--type", "volume", "box"]);
    assert_eq!(wrong.code, 1);
    let some = inspect(&["-f", "{{.Name}}", "box", "no-such"]);
    assert_eq!((some.code, some.stdout.as_str()), (1, "/box\n"));
    assert!(some.stderr.contains("no-such"), "{}", some.stderr);
    let bad = inspect(&["-f", "{{.Id", "box"]);
    assert_eq!(bad.code, 1);
    assert!(!bad.stderr.is_empty());
    remove_all(&berth);
}

#[test]
fn the_state_follows_the_container() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &[]);
    let pid = field(&berth, "box", "/State/Pid").as_u64().expect("a pid");
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    let started = field(&berth, "box", "/State/StartedAt");
    let _ = berth.run(["kill", "box"]).ok();
    let _ = berth.run(["wait", "box"]).ok();
    for (pointer, want) in [
        ("/State/Status", json!("exited")),
        ("/State/ExitCode", json!(137)),
        ("/State/Pid", json!(0)),
        ("/State/Running", json!(false)),
        ("/State/StartedAt", started),
    ] {
        assert_eq!(field(&berth, "box", pointer), want, "{pointer}");
    }
    let failed = berth.run(["run", "-d", "--name", "failed", "busybox", "nonesuch"]);
    assert_eq!(failed.code, 127);
    assert!(
        field(&berth, "failed", "/State/Error")
            .as_str()
            .is_some_and(|e| e.contains("nonesuch"))
    );
    assert_eq!(field(&berth, "failed", "/State/ExitCode"), 127);
    remove_all(&berth);
}
