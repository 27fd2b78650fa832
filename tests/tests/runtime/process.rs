//! What the program is given: ids, capabilities, limits, environment.

use berth_tests::{Bundle, Need, require};
use serde_json::json;

#[test]
fn ids_groups_umask_and_directory() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["sh", "-c", "id -u; id -g; id -G; umask; pwd; echo $HOME"]);
    bundle.config["process"]["user"] =
        json!({"uid": 1000, "gid": 1000, "additionalGids": [2000, 7], "umask": 63});
    bundle.config["process"]["cwd"] = "/tmp".into();
    assert_eq!(
        bundle.verb(&["run"]).ok(),
        "1000\n1000\n1000 7 2000\n0077\n/tmp\n/tmp"
    );
}

#[test]
fn capabilities_are_exactly_those_asked_for() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["grep", "-E", "^(Cap|NoNewPrivs)", "/proc/self/status"]);
    bundle.config["process"]["capabilities"] = json!({
        "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
    });
    let text = bundle.verb(&["run"]).ok();
    let words: Vec<_> = text.split_whitespace().collect();
    let zero_one = |n: u64| format!("{n:016x}");
    let want = [
        ("CapInh:", 0x20),
        ("CapPrm:", 0x21),
        ("CapEff:", 0x21),
        ("CapBnd:", 0x21),
        ("CapAmb:", 0x20),
    ];
    for (pair, (name, value)) in words.chunks(2).zip(want) {
        assert_eq!(pair, [name, zero_one(value).as_str()]);
    }
    assert!(text.ends_with("NoNewPrivs:\t1"), "{text}");
}

#[test]
fn a_capability_the_host_lacks_is_left_out() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["true"]);
    let all = json!(["CAP_SYS_RESOURCE", "CAP_KILL"]);
    bundle.config["process"]["capabilities"] = json!({"bounding": all, "permitted": all, "effective": all});
    let _ = bundle.verb(&["run"]).ok();
}

#[test]
fn unknown_and_lacking_capabilities_are_warned_of_and_left_out() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["grep", "CapBnd", "/proc/self/status"]);
    let lacking: Vec<u32> = (0..=40).filter(|n| !host_has(*n)).collect();
    let all = json!(["CAP_FLY", "CAP_KILL", "CAP_SYS_RESOURCE"]);
    bundle.config["process"]["capabilities"] = json!({"bounding": all, "permitted": all, "effective": all});
    let ran = bundle.verb(&["run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("warning: ignoring unknown capabilities: CAP_FLY"),
        "{}",
        ran.stderr
    );
    let warned = ran.stderr.contains("this host does not give: CAP_SYS_RESOURCE");
    assert_eq!(warned, lacking.contains(&24), "{}", ran.stderr);

    // With a log they go there, and stderr stays the program's.
    let log = bundle.path().join("log");
    let name = log.display().to_string();
    let logged = bundle.output(&["--log", &name, "--log-format", "json", "run", &bundle.id]);
    assert_eq!((logged.code, logged.stderr.as_str()), (0, ""));
    let text = std::fs::read_to_string(log).expect("log");
    assert!(
        text.contains("\"level\":\"warning\"") && text.contains("CAP_FLY"),
        "{text}"
    );
}

/// Whether this process could hand capability `n` on.
fn host_has(n: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|l| l.starts_with("CapBnd")).expect("CapBnd");
    let mask = u64::from_str_radix(line.split_whitespace().nth(1).expect("mask"), 16).expect("hexadecimal");
    mask >> n & 1 == 1
}

#[test]
fn limits_sysctls_names_and_times() {
    if !require(&[Need::Root]) {
        return;
    }
    let script = "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward; cat /proc/sys/kernel/domainname; uname -m; cut -d. -f1 /proc/uptime";
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]);
    bundle.config["domainname"] = "example.org".into();
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("list")
        .push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 100_000_000}});
    let text = bundle.verb(&["run"]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..5], ["64", "128", "1", "example.org", "i686"]);
    assert!(
        lines[5].parse::<u64>().is_ok_and(|up| up >= 100_000_000),
        "{text}"
    );
}

#[test]
fn a_missing_working_directory_is_made_in_the_root() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["pwd"]);
    bundle.config["process"]["cwd"] = json!("/made/here");
    assert_eq!(bundle.verb(&["run"]).ok(), "/made/here");
    // A link of the image leads to a place in the image.
    let outside = bundle.path().join("outside");
    std::os::unix::fs::symlink(&outside, bundle.rootfs().join("link")).expect("link");
    bundle.config["process"]["cwd"] = json!("/link/below");
    let _ = bundle.verb(&["run"]).ok();
    assert!(!outside.exists());
    let inside = bundle.rootfs().join(outside.strip_prefix("/").expect("absolute"));
    assert!(inside.join("below").is_dir());
    bundle.assert_clean();
}
