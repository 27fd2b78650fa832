//! `--health-*`.

use crate::fixture::{berth, eventually, field, remove_all};

#[test]
fn a_check_decides_what_ps_and_inspect_say() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run([
            "run",
            "-d",
            "--name",
            "checked",
            "--health-cmd",
            "echo looked; test -e /healthy",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            "--health-timeout",
            "20s",
            "busybox",
            "sh",
            "-c",
            "touch /healthy; sleep 600",
        ])
        .ok();
    let status = || field(&berth, "checked", "/State/Health/Status");
    eventually("it is healthy", || status() == "healthy");
    assert!(
        berth
            .run(["ps", "--format", "{{.Status}}"])
            .ok()
            .ends_with("(healthy)")
    );
    assert_eq!(
        berth
            .run(["ps", "-q", "--filter", "health=healthy"])
            .ok()
            .lines()
            .count(),
        1
    );
    let _ = berth.run(["exec", "checked", "rm", "/healthy"]).ok();
    eventually("it is unhealthy", || status() == "unhealthy");
    assert!(field(&berth, "checked", "/State/Health/FailingStreak").as_u64() >= Some(2));
    let log = field(&berth, "checked", "/State/Health/Log");
    let last = log.as_array().and_then(|log| log.last()).expect("an outcome");
    assert_eq!(
        (&last["ExitCode"], &last["Output"]),
        (&1.into(), &"looked\n".into())
    );
    assert!(log.as_array().is_some_and(|log| log.len() <= 5));
    let _ = berth.run(["exec", "checked", "touch", "/healthy"]).ok();
    eventually("it is healthy again", || status() == "healthy");
    remove_all(&berth);
}

#[test]
fn while_it_starts_up_failures_do_not_count() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run([
            "run",
            "-d",
            "--name",
            "slow",
            "--health-cmd",
            "echo >> /checks; false",
            "--health-interval",
            "50ms",
            "--health-retries",
            "1",
            "--health-start-period",
            "1h",
            "--health-start-interval",
            "50ms",
            "busybox",
            "sleep",
            "600",
        ])
        .ok();
    eventually("it was checked several times", || {
        let lines = berth.run(["exec", "slow", "wc", "-l", "/checks"]).stdout;
        lines.split(' ').next().and_then(|n| n.parse::<u32>().ok()) > Some(3)
    });
    assert_eq!(field(&berth, "slow", "/State/Health/Status"), "starting");
    remove_all(&berth);
}

#[test]
fn a_check_that_takes_too_long_fails() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run([
            "run",
            "-d",
            "--name",
            "stuck",
            "--health-cmd",
            "sleep 500",
            "--health-interval",
            "50ms",
            "--health-timeout",
            "100ms",
            "--health-retries",
            "1",
            "busybox",
            "sleep",
            "600",
        ])
        .ok();
    eventually("it is unhealthy", || {
        field(&berth, "stuck", "/State/Health/Status") == "unhealthy"
    });
    remove_all(&berth);
}

#[test]
fn the_images_check_can_be_switched_off() {
    let Some(berth) = berth() else { return };
    for (flags, status) in [(&["--no-healthcheck"][..], "running"), (&[], "running")] {
        let command = ["run", "-d", "--name", "plain"].iter().chain(flags);
        let _ = berth.run(command.chain(&["busybox", "sleep", "600"])).ok();
        assert_eq!(field(&berth, "plain", "/State/Status"), status);
        let shown = berth.run(["ps", "--format", "{{.Status}}"]).ok();
        assert!(!shown.contains('('), "{shown}");
        let _ = berth.run(["rm", "-f", "plain"]).ok();
    }
    let both = berth.run([
        "run",
        "--rm",
        "--no-healthcheck",
        "--health-cmd",
        "true",
        "busybox",
        "true",
    ]);
    assert_eq!(both.code, 125);
    let bad = berth.run([
        "run",
        "--rm",
        "--health-cmd",
        "true",
        "--health-interval",
        "soon",
        "busybox",
        "true",
    ]);
    assert_eq!(bad.code, 125);
    assert!(bad.stderr.contains("soon"), "{}", bad.stderr);
}
