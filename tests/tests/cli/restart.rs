//! `--restart`: what the shim does when the container ends.

use crate::fixture::{berth, eventually, field, remove_all};

#[test]
fn on_failure_restarts_as_often_as_said() {
    let Some(berth) = berth() else { return };
    let script = ["busybox", "sh", "-c", "echo run; exit 3"];
    let _ = berth
        .run(
            ["run", "-d", "--name", "failing", "--restart", "on-failure:2"]
                .iter()
                .chain(&script),
        )
        .ok();
    assert_eq!(berth.run(["wait", "failing"]).ok(), "3");
    assert_eq!(berth.run(["logs", "failing"]).ok(), "run\nrun\nrun");
    assert_eq!(field(&berth, "failing", "/RestartCount"), 2);
    assert_eq!(
        field(&berth, "failing", "/HostConfig/RestartPolicy/MaximumRetryCount"),
        2
    );
    let _ = berth
        .run([
            "run",
            "-d",
            "--name",
            "fine",
            "--restart",
            "on-failure:2",
            "busybox",
            "true",
        ])
        .ok();
    assert_eq!(berth.run(["wait", "fine"]).ok(), "0");
    assert_eq!(field(&berth, "fine", "/RestartCount"), 0);
    remove_all(&berth);
}

#[test]
fn always_restarts_until_stopped() {
    let Some(berth) = berth() else { return };
    for policy in ["always", "unless-stopped"] {
        let _ = berth
            .run([
                "run",
                "-d",
                "--name",
                "phoenix",
                "--restart",
                policy,
                "busybox",
                "sh",
                "-c",
                "sleep 600",
            ])
            .ok();
        let first = field(&berth, "phoenix", "/State/Pid");
        let pid = first.as_u64().expect("a pid").to_string();
        // From outside, as the kernel's OOM killer would; berth's own kill counts as stopping it.
        assert!(
            std::process::Command::new("kill")
                .args(["-9", &pid])
                .status()
                .is_ok_and(|s| s.success())
        );
        eventually("it runs again", || {
            let now = field(&berth, "phoenix", "/State/Pid");
            now != 0 && now != first && field(&berth, "phoenix", "/State/Status") == "running"
        });
        let _ = berth.run(["stop", "-t", "0", "phoenix"]).ok();
        assert_eq!(field(&berth, "phoenix", "/State/Status"), "exited");
        let _ = berth.run(["rm", "phoenix"]).ok();
    }
    remove_all(&berth);
}

#[test]
fn policies_that_make_no_sense_are_refused() {
    let Some(berth) = berth() else { return };
    for (flags, names) in [
        (&["--restart", "sometimes"][..], "sometimes"),
        (&["--restart", "on-failure:many"], "many"),
        (&["--restart", "always:3"], "always:3"),
        (&["--rm", "--restart", "always"], "--rm"),
    ] {
        let refused = berth.run(["run"].iter().chain(flags).chain(&["busybox", "true"]));
        assert_eq!(refused.code, 125, "{flags:?}");
        assert!(refused.stderr.contains(names), "{flags:?}: {}", refused.stderr);
    }
    assert_eq!(berth.run(["ps", "-aq"]).ok(), "");
}

#[test]
fn what_ends_again_and_again_can_be_stopped_and_removed() {
    let Some(berth) = berth() else { return };
    for (name, last) in [
        ("stopped", &["stop", "stopped"][..]),
        ("removed", &["rm", "-f", "removed"]),
    ] {
        let _ = berth
            .run([
                "run",
                "-d",
                "--name",
                name,
                "--restart",
                "always",
                "busybox",
                "false",
            ])
            .ok();
        eventually("it was started several times", || {
            field(&berth, name, "/RestartCount").as_u64() > Some(2)
        });
        let _ = berth.run(last).ok();
    }
    assert_eq!(field(&berth, "stopped", "/State/Status"), "exited");
    let count = field(&berth, "stopped", "/RestartCount");
    assert_eq!(field(&berth, "stopped", "/RestartCount"), count);
    let _ = berth.run(["rm", "stopped"]).ok();
    assert_eq!(berth.run(["ps", "-aq"]).ok(), "");
    assert_eq!(berth.left(), Vec::<String>::new());
}
