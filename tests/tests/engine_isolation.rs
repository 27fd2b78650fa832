//! What lets a container at the host or at another one, asked for by flag: exactly that, and no more.

use berth_tests::{Berth, Need, Shim, require};

fn berth() -> Option<Berth> {
    require(&[Need::Root, Need::Program("busybox")]).then(Berth::with_busybox)
}

/// `berth run --rm --network=none FLAGS busybox sh -c SCRIPT`.
fn run(berth: &Berth, flags: &[&str], script: &str) -> berth_tests::Output {
    let command = ["run", "--rm", "--network=none"].iter().chain(flags);
    berth.run(command.chain(&["busybox", "sh", "-c", script]))
}

#[test]
fn a_device_handed_in_for_reading_is_not_opened_for_writing() {
    let Some(berth) = berth() else { return };
    let script = "mknod /dev/other c 10 229; for how in '<' '>'; do (eval \": $how /dev/in\") 2>/dev/null && echo \"$how\"; \
                  (eval \": $how /dev/other\") 2>/dev/null && echo \"other $how\"; done; true";
    assert_eq!(
        run(&berth, &["--device", "/dev/net/tun:/dev/in:r"], script).ok(),
        "<"
    );
    assert_eq!(
        run(&berth, &["--device", "/dev/net/tun:/dev/in:w"], script).ok(),
        ">"
    );
    assert_eq!(
        run(&berth, &["--device", "/dev/net/tun:/dev/in"], script).ok(),
        "<\n>"
    );
    assert!(berth.mounts_left().is_empty());
}

#[test]
fn a_sysctl_reaches_no_namespace_of_the_hosts() {
    let Some(berth) = berth() else { return };
    let file = "/proc/sys/kernel/msgmax";
    let before = std::fs::read_to_string(file).expect("read the host's value");
    let other: u32 = before.trim().parse::<u32>().expect("a number") / 2;
    let flag = format!("kernel.msgmax={other}");
    let refused = run(&berth, &["--ipc=host", "--sysctl", &flag], "true");
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("kernel.msgmax"), "{}", refused.stderr);
    for key in [
        "kernel.panic",
        "kernel.shmxyz",
        "net.ipv4/../../kernel/panic",
        "vm.swappiness",
    ] {
        let flag = format!("{key}=1");
        let refused = run(&berth, &["--sysctl", &flag], "true");
        assert_eq!(refused.code, 125, "{key}");
        assert!(refused.stderr.contains(key), "{key}: {}", refused.stderr);
    }
    // One joined is that of another container, which is fine.
    let (first, _) = Shim::run(&berth, &[], &["sleep", "600"]);
    let joined = format!("--ipc=container:{first}");
    assert_eq!(
        run(&berth, &[&joined, "--sysctl", &flag], &format!("cat {file}")).ok(),
        other.to_string()
    );
    assert_eq!(berth.run(["exec", &first, "cat", file]).ok(), other.to_string());
    assert_eq!(
        std::fs::read_to_string(file).expect("read the host's value"),
        before
    );
    let _ = berth.run(["rm", "-f", &first]).ok();
}

#[test]
fn entries_of_a_seccomp_profile_are_for_who_holds_all_they_include_and_none_they_exclude() {
    let Some(berth) = berth() else { return };
    let file = berth.scratch().join("profile.json");
    let option = format!("seccomp={}", file.display());
    let script = "mkdir /made 2>/dev/null; echo $?; grep Seccomp: /proc/self/status";
    // CAP_CHOWN is among the default set, CAP_SYS_ADMIN is not.
    for (entry, code) in [
        (r#""includes": {"caps": ["CAP_CHOWN"]}"#, "1"),
        (r#""includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}"#, "0"),
        (r#""excludes": {"caps": ["CAP_SYS_ADMIN"]}"#, "1"),
        (r#""excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}"#, "0"),
        (r#""includes": {"arches": ["s390x"]}"#, "0"),
    ] {
        let profile = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}}],
            "syscalls": [{{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, {entry}}},
            {{"names": ["setdomainname"], "action": "SCMP_ACT_ERRNO"}}]}}"#
        );
        std::fs::write(&file, profile).expect("write the profile");
        let said = run(&berth, &["--security-opt", &option], script).ok();
        assert_eq!(said, format!("{code}\nSeccomp:\t2"), "{entry}");
    }
}

#[test]
fn a_seccomp_profile_is_read_once() {
    let Some(berth) = berth() else { return };
    let file = berth.scratch().join("profile.json");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&file, profile).expect("write the profile");
    let option = format!("seccomp={}", file.display());
    let command = [
        "create",
        "--network=none",
        "--security-opt",
        &option,
        "busybox",
        "sh",
        "-c",
    ];
    let id = berth
        .run(command.iter().chain(&["mkdir /made && echo made; sleep 600"]))
        .ok();
    // Whoever may change the file later has no say in what was asked for.
    std::fs::write(&file, r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).expect("write the profile");
    let _ = berth.run(["start", &id]).ok();
    let inside = berth.run(["exec", &id, "mkdir", "/also"]);
    assert_eq!(
        inside.code, 1,
        "exec has the container's filter: {}",
        inside.stderr
    );
    assert_eq!(berth.run(["logs", &id]).stdout, "");
    let _ = berth.run(["rm", "-f", &id]).ok();
}
