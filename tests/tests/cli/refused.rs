//! What cannot be done: a message that says what was attempted, on what, why not and what to do, and nothing left behind.

use berth_tests::Berth;

use crate::fixture::{berth, remove_all, sleeping};

/// `run --rm FLAGS` must fail with this code, say all of these words, and leave nothing: not even its cgroup.
#[track_caller]
fn refused(berth: &Berth, arguments: &[&str], code: i32, words: &[&str]) {
    // A parent of its own shows what the container left below it.
    let parent = format!(
        "/berth-refused-{}",
        berth.scratch().file_name().expect("a name").to_string_lossy()
    );
    let before = berth.run(["ps", "-aq"]).ok();
    let flags = ["run", "--rm", "--cgroup-parent", &parent];
    let ran = berth.run(flags.iter().chain(arguments));
    assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.stdout, ran.stderr);
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "{arguments:?}: no {word:?} in {}",
            ran.stderr
        );
    }
    assert!(ran.stderr.starts_with("berth: "), "{}", ran.stderr);
    assert_eq!(berth.run(["ps", "-aq"]).ok(), before, "{arguments:?}");
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
        .expect("list cgroups")
        .flatten()
    {
        let left = hierarchy.path().join(parent.trim_start_matches('/'));
        let below = std::fs::read_dir(&left).into_iter().flatten().flatten();
        let below: Vec<_> = below.filter(|e| e.path().is_dir()).map(|e| e.path()).collect();
        assert!(below.is_empty(), "{arguments:?}: {below:?}");
        let _ = std::fs::remove_dir(left);
    }
}

#[test]
fn commands_that_cannot_run() {
    let Some(berth) = berth() else { return };
    refused(
        &berth,
        &["busybox", "nonesuch"],
        127,
        &["nonesuch", "not found", "hint:"],
    );
    refused(
        &berth,
        &["busybox", "/etc/passwd"],
        126,
        &["/etc/passwd", "ermission denied", "hint:"],
    );
    refused(&berth, &["busybox", "/etc"], 126, &["/etc"]);
    refused(&berth, &["--entrypoint", "gone", "busybox", "x"], 127, &["gone"]);
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn names_and_ports_that_are_taken() {
    let Some(berth) = berth() else { return };
    let id = sleeping(&berth, "holder", &["-p", "127.0.0.1:8080:80"]);
    refused(
        &berth,
        &["--name", "holder", "busybox", "true"],
        125,
        &["\"holder\"", &id[..12], "hint:", "berth rm"],
    );
    refused(
        &berth,
        &["-p", "127.0.0.1:8080:80", "busybox", "true"],
        125,
        &["8080/tcp", "127.0.0.1", "taken", "hint:"],
    );
    refused(
        &berth,
        &["-p", "0.0.0.0:8080:80", "busybox", "true"],
        125,
        &["8080/tcp", "taken"],
    );
    refused(
        &berth,
        &["--ip", "10.77.0.1", "busybox", "true"],
        125,
        &["10.77.0.1"],
    );
    // The second of two ports is taken: the first is given back.
    refused(
        &berth,
        &["-p", "9090:90", "-p", "8080:80", "busybox", "true"],
        125,
        &["8080/tcp"],
    );
    let _ = berth
        .run(["run", "--rm", "-p", "9090:90", "busybox", "true"])
        .ok();
    remove_all(&berth);
}

#[test]
fn memory_that_is_too_little() {
    let Some(berth) = berth() else { return };
    refused(
        &berth,
        &["-m", "1m", "busybox", "true"],
        125,
        &["memory", "1m", "6m"],
    );
    refused(
        &berth,
        &["-m", "1g", "--memory-swap", "1m", "busybox", "true"],
        125,
        &["swap"],
    );
    // Enough to start and not enough to run: that is the command's end, not berth's failure.
    let ran = berth.run([
        "run",
        "--rm",
        "-m",
        "6m",
        "--memory-swap",
        "6m",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=32M",
        "count=1",
    ]);
    assert_eq!(ran.code, 137, "{}", ran.stderr);
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn images_that_are_missing() {
    let Some(berth) = berth() else { return };
    refused(
        &berth,
        &["--pull", "never", "no-such-image", "true"],
        125,
        &["no-such-image", "hint:", "berth pull"],
    );
    // Nothing listens there.
    refused(
        &berth,
        &["127.0.0.1:1/no/image:tag", "true"],
        125,
        &["127.0.0.1:1/no/image:tag", "refused"],
    );
    refused(&berth, &["UPPER/case", "true"], 125, &["UPPER/case"]);
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn flags_that_are_wrong() {
    let Some(berth) = berth() else { return };
    refused(&berth, &["--no-such-flag", "busybox"], 125, &["--no-such-flag"]);
    refused(&berth, &["--name", "no/slash", "busybox"], 125, &["no/slash"]);
    refused(
        &berth,
        &["-v", "relative/path:/x", "busybox"],
        125,
        &["relative/path"],
    );
    refused(&berth, &["--env-file", "/no/such", "busybox"], 125, &["/no/such"]);
    refused(&berth, &["--userns", "private", "busybox"], 125, &["userns"]);
    refused(&berth, &[], 125, &["IMAGE"]);
    // A directory of somebody else's stays as it is; an empty one is taken.
    let foreign = berth.scratch().join("foreign");
    std::fs::create_dir(&foreign).expect("make a directory");
    std::fs::set_permissions(&foreign, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).expect("chmod");
    std::fs::write(foreign.join("file"), "").expect("write");
    let path = foreign.to_str().expect("UTF-8");
    for flag in ["--root", "--state"] {
        let refused = berth.run([flag, path, "ps"]);
        assert_eq!(refused.code, 1, "{flag}");
        for word in [path, "not berth's", "hint:"] {
            assert!(refused.stderr.contains(word), "{flag}: {}", refused.stderr);
        }
    }
    assert_eq!(std::fs::read_dir(&foreign).expect("list").count(), 1);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&foreign).expect("stat"));
    assert_eq!(mode & 0o7777, 0o1777);
    std::fs::remove_file(foreign.join("file")).expect("remove");
    let _ = berth.run(["--state", path, "ps"]).ok();
    // Which of the two directories it is.
    let nowhere = berth.run(["--state", "/proc/state", "run", "--rm", "busybox", "true"]);
    assert_eq!(nowhere.code, 125);
    assert!(nowhere.stderr.contains("/proc/state"), "{}", nowhere.stderr);
    let unknown = berth.run(["fly"]);
    assert_eq!(unknown.code, 125);
    assert!(unknown.stderr.contains("fly"), "{}", unknown.stderr);
}

#[test]
fn flags_that_would_do_nothing() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "other", &[]);
    for (flags, named) in [
        (
            &["--network", "container:other", "--dns", "192.0.2.1"][..],
            "--dns",
        ),
        (&["--network", "container:other", "--hostname", "x"], "--hostname"),
        (&["--network", "container:other", "-p", "80:80"], "--publish"),
        (
            &["--network", "container:other", "--add-host", "a:192.0.2.1"],
            "--add-host",
        ),
        (&["--network", "none", "--ip", "10.77.0.9"], "--ip"),
        (
            &["--network", "host", "--mac-address", "02:11:22:33:44:55"],
            "--mac-address",
        ),
        (&["--network", "none", "--network-alias", "x"], "--network-alias"),
        (&["--uts", "host", "--domainname", "x"], "--domainname"),
        (&["--uts", "host", "--hostname", "x"], "--hostname"),
        (&["--ipc", "host", "--shm-size", "1m"], "--shm-size"),
        (
            &["--no-healthcheck", "--health-start-period", "1s"],
            "--health-start-period",
        ),
        (&["-v", "/etc:/x:ro,rw"], "ro and rw"),
        (&["--cpus", "100000"], "cpus"),
        (&["--cpu-period", "10"], "cpu period 10"),
        (&["--cpu-quota", "5"], "cpu quota 5"),
    ] {
        refused(&berth, &[flags, &["busybox", "true"]].concat(), 125, &[named]);
    }
    let nothing = berth.run(["update", "other"]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.stderr.contains("nothing to update"), "{}", nothing.stderr);
    remove_all(&berth);
}

#[test]
fn objects_that_are_missing_say_what_there_is() {
    let Some(berth) = berth() else { return };
    for verb in [
        &["start"][..],
        &["stop"],
        &["kill"],
        &["rm"],
        &["logs"],
        &["attach"],
        &["wait"],
        &["top"],
        &["pause"],
        &["unpause"],
        &["port"],
        &["restart"],
        &["update", "-m", "64m"],
        &["export"],
    ] {
        let failed = berth.run(verb.iter().chain(&["no-such"]));
        assert_eq!(failed.code, 1, "{verb:?}: {}", failed.stderr);
        assert!(
            failed.stderr.contains("no such container: no-such") && failed.stderr.contains("berth ps --all"),
            "{verb:?}: {}",
            failed.stderr
        );
    }
}

#[test]
fn more_is_told_at_a_lower_level_and_less_at_a_higher() {
    let Some(berth) = berth() else { return };
    let create = |level: &[&str]| {
        let command = level.iter().chain(&[
            "run",
            "--rm",
            "--network",
            "none",
            "-p",
            "80:80",
            "busybox",
            "true",
        ]);
        berth.run(command)
    };
    let usual = create(&[]);
    assert!(
        usual.stderr.contains("published ports are discarded"),
        "{}",
        usual.stderr
    );
    assert!(!usual.stderr.contains("debug"), "{}", usual.stderr);
    let quiet = create(&["--log-level", "error"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    let chatty = create(&["-l", "debug"]);
    assert!(
        chatty.stderr.contains("debug: ") && chatty.stderr.contains("published ports"),
        "{}",
        chatty.stderr
    );
    let failed = berth.run(["--log-level", "fatal", "rm", "no-such"]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("no-such"), "why it failed is always told");
    let bad = berth.run(["--log-level", "loud", "ps"]);
    assert_eq!(bad.code, 125);
    assert!(bad.stderr.contains("loud"), "{}", bad.stderr);
}
