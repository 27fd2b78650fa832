//! `run`: what the process may do.

use berth_tests::Berth;

use crate::fixture::{berth, inside, remove_all, sleeping};

/// docker's default set, as the kernel numbers it.
const DEFAULT: u64 = 0xa804_25fb;

fn bounding(berth: &Berth, flags: &[&str]) -> u64 {
    let shown = inside(berth, flags, "grep CapBnd /proc/self/status");
    let hex = shown.split_whitespace().nth(1).expect("a number");
    u64::from_str_radix(hex, 16).expect("hexadecimal")
}

#[test]
fn capabilities_are_dockers_and_change_by_flag() {
    let Some(berth) = berth() else { return };
    const SYS_TIME: u64 = 1 << 25;
    const CHOWN: u64 = 1;
    const NET_RAW: u64 = 1 << 13;
    assert_eq!(bounding(&berth, &[]), DEFAULT);
    assert_eq!(bounding(&berth, &["--cap-add", "SYS_TIME"]), DEFAULT | SYS_TIME);
    assert_eq!(
        bounding(&berth, &["--cap-add", "cap_sys_time"]),
        DEFAULT | SYS_TIME
    );
    assert_eq!(bounding(&berth, &["--cap-drop", "CHOWN"]), DEFAULT & !CHOWN);
    assert_eq!(bounding(&berth, &["--cap-drop", "ALL"]), 0);
    assert_eq!(
        bounding(&berth, &["--cap-drop", "all", "--cap-add", "NET_RAW"]),
        NET_RAW
    );
    let refused = berth.run(["run", "--rm", "--cap-add", "NO_SUCH", "busybox", "true"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("NO_SUCH"), "{}", refused.stderr);
    // Not only shown: the kernel refuses.
    let chown = "chown 5 /etc/passwd 2>&1 || true";
    assert_eq!(
        inside(&berth, &["--cap-drop", "CHOWN"], chown),
        "chown: /etc/passwd: Operation not permitted"
    );
}

#[test]
fn privileged_has_all_there_is() {
    let Some(berth) = berth() else { return };
    let own = std::fs::read_to_string("/proc/self/status").expect("read status");
    let own = own
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:\t"))
        .expect("a set");
    let own = u64::from_str_radix(own, 16).expect("hexadecimal");
    assert_eq!(bounding(&berth, &["--privileged"]), own);
    let script = "grep Seccomp: /proc/self/status; mount -t tmpfs none /mnt 2>&1 || mkdir /m && mount -t tmpfs none /m && echo mounted; [ -w /proc/sys/kernel/msgmax ] && echo writable; [ -c /dev/kmsg ] && echo devices";
    let shown = inside(&berth, &["--privileged"], script);
    for want in ["Seccomp:\t0", "mounted", "writable", "devices"] {
        assert!(shown.contains(want), "no {want:?} in {shown}");
    }
}

#[test]
fn seccomp_is_on_unless_switched_off_or_replaced() {
    let Some(berth) = berth() else { return };
    let mode = |flags: &[&str]| inside(&berth, flags, "grep Seccomp: /proc/self/status");
    assert_eq!(mode(&[]), "Seccomp:\t2");
    assert_eq!(mode(&["--security-opt", "seccomp=unconfined"]), "Seccomp:\t0");
    // unshare(2) of a user namespace is what the default profile keeps from containers.
    let unshare = "unshare -U true 2>&1 && echo allowed || true";
    assert!(!inside(&berth, &[], unshare).contains("allowed"));
    let profile = berth.scratch().join("profile.json");
    let no_mkdir = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    std::fs::write(&profile, no_mkdir).expect("write");
    let option = format!("seccomp={}", profile.display());
    assert_eq!(
        inside(&berth, &["--security-opt", &option], "mkdir /x 2>&1 || true"),
        "mkdir: can't create directory '/x': Operation not supported"
    );
    let missing = berth.run([
        "run",
        "--rm",
        "--security-opt",
        "seccomp=/no/such",
        "busybox",
        "true",
    ]);
    assert_eq!(missing.code, 125);
    assert!(missing.stderr.contains("/no/such"), "{}", missing.stderr);
    // Refused when the container is created, not when it starts.
    let index = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"],
        "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#;
    for (text, word) in [
        ("{", "EOF"),
        (r#"{"defaultAction": "SCMP_ACT_NOPE"}"#, "SCMP_ACT_NOPE"),
        (index, "index 9"),
    ] {
        std::fs::write(&profile, text).expect("write");
        let broken = berth.run(["create", "--security-opt", &option, "busybox", "true"]);
        assert_eq!(broken.code, 125, "{text}");
        for word in ["seccomp profile", profile.to_str().expect("UTF-8"), word] {
            assert!(broken.stderr.contains(word), "{word}: {}", broken.stderr);
        }
    }
    assert_eq!(berth.run(["ps", "-aq"]).ok(), "");
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn no_new_privileges_and_what_is_refused() {
    let Some(berth) = berth() else { return };
    let shown = |flags: &[&str]| inside(&berth, flags, "grep NoNewPrivs /proc/self/status");
    assert_eq!(shown(&[]), "NoNewPrivs:\t0");
    assert_eq!(shown(&["--security-opt", "no-new-privileges"]), "NoNewPrivs:\t1");
    assert_eq!(
        shown(&["--security-opt", "no-new-privileges:false"]),
        "NoNewPrivs:\t0"
    );
    for option in [
        "apparmor=mine",
        "label=type:x",
        "nonsense",
        "no-new-privileges:perhaps",
    ] {
        let refused = berth.run(["run", "--rm", "--security-opt", option, "busybox", "true"]);
        assert_eq!(refused.code, 125, "{option}: {}", refused.stderr);
        let named = option.split(['=', ':']).next().expect("a word");
        assert!(refused.stderr.contains(named), "{option}: {}", refused.stderr);
    }
}

#[test]
fn devices_of_the_host() {
    let Some(berth) = berth() else { return };
    let read = "head -c 1 /dev/my-zero | wc -c; echo x > /dev/my-zero && echo written";
    assert_eq!(
        inside(&berth, &["--device", "/dev/zero:/dev/my-zero"], read),
        "1\nwritten"
    );
    let stat = "stat -c %t:%T /dev/net/tun";
    assert_eq!(inside(&berth, &["--device", "/dev/net/tun"], stat), "a:c8");
    let missing = berth.run(["run", "--rm", "--device", "/dev/no-such", "busybox", "true"]);
    assert_eq!(missing.code, 125);
    assert!(missing.stderr.contains("/dev/no-such"), "{}", missing.stderr);
    // What is not handed in cannot be made and opened either.
    let kmsg = "mknod /dev/k c 1 11 2>&1 && head -c 1 /dev/k 2>&1 || true";
    assert!(
        inside(&berth, &[], kmsg).contains("Operation not permitted"),
        "the devices cgroup lets /dev/kmsg through"
    );
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn namespaces_of_the_host_and_of_others() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "first", &[]);
    let own = |kind: &str| {
        std::fs::read_link(format!("/proc/self/ns/{kind}"))
            .expect("read a link")
            .display()
            .to_string()
    };
    for (flags, kind) in [
        (["--pid", "host"], "pid"),
        (["--ipc", "host"], "ipc"),
        (["--uts", "host"], "uts"),
        (["--cgroupns", "host"], "cgroup"),
    ] {
        let link = format!("readlink /proc/self/ns/{kind}");
        assert_eq!(inside(&berth, &flags, &link), own(kind), "{flags:?}");
        assert_ne!(inside(&berth, &[], &link), own(kind), "{kind}");
    }
    let of_first = |kind: &str| {
        berth
            .run(["exec", "first", "readlink", &format!("/proc/self/ns/{kind}")])
            .ok()
    };
    for (flags, kind) in [
        (["--pid", "container:first"], "pid"),
        (["--ipc", "container:first"], "ipc"),
        (["--network", "container:first"], "net"),
    ] {
        let link = format!("readlink /proc/self/ns/{kind}");
        assert_eq!(inside(&berth, &flags, &link), of_first(kind), "{flags:?}");
    }
    let _ = berth
        .run(["exec", "first", "sh", "-c", "echo shared > /dev/shm/file"])
        .ok();
    let ipc = ["--ipc", "container:first"];
    assert_eq!(
        inside(&berth, &ipc, "cat /dev/shm/file; echo back > /dev/shm/file"),
        "shared"
    );
    assert_eq!(berth.run(["exec", "first", "cat", "/dev/shm/file"]).ok(), "back");
    let _ = berth.run(["stop", "-t", "0", "first"]).ok();
    let refused = berth.run(["run", "--rm", "--network", "container:first", "busybox", "true"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("first"), "{}", refused.stderr);
    remove_all(&berth);
}
