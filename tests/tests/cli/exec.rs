//! `exec`.

use berth_tests::Output;

use crate::fixture::{berth, eventually, remove_all, sleeping};

#[test]
fn codes_and_streams_are_the_commands() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &[]);
    let ran = berth.run(["exec", "box", "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (9, "out\n", "err\n")
    );
    for (command, code) in [
        (&["nonesuch"][..], 127),
        (&["/etc/passwd"], 126),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
    ] {
        let ran = berth.run(["exec", "box"].iter().chain(command));
        assert_eq!(ran.code, code, "{command:?}: {}", ran.stderr);
    }
    let missing = berth.run(["exec", "no-such", "true"]);
    assert_eq!((missing.code, missing.stderr.contains("no-such")), (1, true));
    let _ = berth.run(["stop", "-t", "0", "box"]).ok();
    let stopped = berth.run(["exec", "box", "true"]);
    assert_eq!(stopped.code, 1);
    assert!(
        stopped.stderr.contains("box") && stopped.stderr.contains("berth start"),
        "{}",
        stopped.stderr
    );
    remove_all(&berth);
}

#[test]
fn input_comes_only_when_asked_for() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &[]);
    assert_eq!(berth.feed("typed\n", ["exec", "-i", "box", "cat"]).ok(), "typed");
    assert_eq!(berth.feed("typed\n", ["exec", "box", "cat"]).ok(), "");
    // More than a pipe holds.
    let long = "x".repeat(300_000);
    assert_eq!(
        berth.feed(&long, ["exec", "-i", "box", "wc", "-c"]).ok(),
        "300000"
    );
}

#[test]
fn environment_user_and_directory() {
    let Some(berth) = berth() else { return };
    sleeping(
        &berth,
        "box",
        &["-e", "FROM_RUN=1", "-e", "OVER=run", "-w", "/var"],
    );
    let file = berth.scratch().join("env");
    std::fs::write(&file, "FROM_FILE=1\n").expect("write");
    let mut command = berth.command([
        "exec",
        "-e",
        "OVER=exec",
        "-e",
        "PASSED",
        "-e",
        "FROM_RUN",
        "--env-file",
    ]);
    let output = command
        .arg(&file)
        .args(["box", "env"])
        .env("PASSED", "yes")
        .env_remove("FROM_RUN")
        .output();
    let env = Output::from(output.expect("start berth")).ok();
    let env: Vec<_> = env.lines().collect();
    for want in ["OVER=exec", "PASSED=yes", "FROM_FILE=1"] {
        assert!(env.contains(&want), "no {want} in {env:?}");
    }
    assert_eq!(
        env.iter().filter(|line| line.starts_with("OVER=")).count(),
        1,
        "{env:?}"
    );
    assert!(env.iter().all(|line| !line.starts_with("FROM_RUN")), "{env:?}");
    assert_eq!(berth.run(["exec", "box", "pwd"]).ok(), "/var");
    assert_eq!(berth.run(["exec", "-w", "/etc", "box", "pwd"]).ok(), "/etc");
    let nowhere = berth.run(["exec", "-w", "/nowhere", "box", "pwd"]);
    assert_ne!(nowhere.code, 0);
    assert!(nowhere.stderr.contains("/nowhere"), "{}", nowhere.stderr);
    let relative = berth.run(["exec", "-w", "not/absolute", "box", "pwd"]);
    assert_ne!(relative.code, 0);
    assert!(
        relative
            .stderr
            .starts_with("berth: invalid working directory \"not/absolute\""),
        "{}",
        relative.stderr
    );
    assert_eq!(berth.run(["exec", "-u", "user", "box", "id", "-u"]).ok(), "1000");
    assert_eq!(
        berth.run(["exec", "-u", "user", "box", "id", "-G"]).ok(),
        "1000 2000",
        "the first group is among them"
    );
    let unknown = berth.run(["exec", "-u", "no-one", "box", "id"]);
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("no-one"), "{}", unknown.stderr);
}

#[test]
fn detached_it_runs_on_alone() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &[]);
    let ran = berth.run([
        "exec",
        "-d",
        "box",
        "sh",
        "-c",
        "sleep 0.2; echo done > /done; sleep 600",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    eventually("it has run", || {
        berth.run(["exec", "box", "cat", "/done"]).stdout == "done\n"
    });
    assert!(berth.run(["top", "box"]).ok().contains("sleep 600"));
    let missing = berth.run(["exec", "-d", "box", "nonesuch"]);
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    remove_all(&berth);
}

#[test]
fn it_holds_the_containers_rights_unless_privileged() {
    let Some(berth) = berth() else { return };
    sleeping(
        &berth,
        "box",
        &["--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
    );
    let status = |flags: &[&str]| {
        let command = ["exec"].iter().chain(flags);
        berth
            .run(command.chain(&[
                "box",
                "grep",
                "-E",
                "CapBnd|NoNewPrivs|Seccomp:",
                "/proc/self/status",
            ]))
            .ok()
    };
    assert_eq!(
        status(&[]),
        "CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2"
    );
    let privileged = status(&["--privileged"]);
    assert!(!privileged.contains("CapBnd:\t0000000000000000"), "{privileged}");
}
