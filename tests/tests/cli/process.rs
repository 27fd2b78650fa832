//! `run`: the process and what it is told. Each flag by its effect inside the container.

use crate::fixture::{berth, eventually, field, inside, remove_all};

#[test]
fn detached_it_prints_its_id_and_runs_on() {
    let Some(berth) = berth() else { return };
    let id = berth
        .run(["run", "-d", "--name", "web", "busybox", "sleep", "600"])
        .ok();
    assert!(
        id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
    assert_eq!(berth.run(["ps", "-q", "--no-trunc"]).ok(), id);
    assert_eq!(berth.run(["ps", "--format", "{{.Names}}"]).ok(), "web");
    remove_all(&berth);
}

#[test]
fn in_the_foreground_its_streams_and_code_are_ours() {
    let Some(berth) = berth() else { return };
    let ran = berth.run(["run", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (7, "out\n", "err\n")
    );
    assert_eq!(berth.run(["ps", "-a", "--format", "{{.State}}"]).ok(), "exited");
    remove_all(&berth);
}

#[test]
fn rm_removes_it_with_its_anonymous_volumes() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run([
            "run",
            "--rm",
            "-v",
            "/data",
            "-v",
            "kept:/kept",
            "busybox",
            "true",
        ])
        .ok();
    eventually("the container is gone", || {
        berth.run(["ps", "-aq"]).ok().is_empty()
    });
    eventually("the anonymous volume is gone, the named one stays", || {
        berth.run(["volume", "ls", "-q"]).ok() == "kept"
    });
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn the_environment_is_the_images_the_hosts_and_the_flags() {
    let Some(berth) = berth() else { return };
    let tree = berth.scratch().join("busybox.tar");
    let import = ["--change", "ENV FROM_IMAGE=1", "--change", "ENV TAKEN_OUT=1"];
    let _ = berth
        .run(
            ["import"]
                .iter()
                .chain(&import)
                .chain(&[tree.to_str().expect("UTF-8"), "with-env"]),
        )
        .ok();
    let file = berth.scratch().join("env");
    std::fs::write(
        &file,
        "# a comment\n\nFROM_FILE=a b\nOVER=file\nPASSED\nNOT_SET\n",
    )
    .expect("write");
    let mut command = berth.command(["run", "--rm", "--env-file"]);
    command
        .arg(&file)
        .args([
            "-e",
            "OVER=flag",
            "-e",
            "PASSED_TOO",
            "-e",
            "TAKEN_OUT",
            "-e",
            "EMPTY=",
        ])
        .args(["with-env", "env"])
        .env("PASSED", "from host")
        .env("PASSED_TOO", "yes")
        .env_remove("TAKEN_OUT")
        .env_remove("NOT_SET");
    let env = berth_tests::Output::from(command.output().expect("start berth")).ok();
    let env: Vec<_> = env.lines().collect();
    for want in [
        "FROM_IMAGE=1",
        "FROM_FILE=a b",
        "OVER=flag",
        "PASSED=from host",
        "PASSED_TOO=yes",
        "EMPTY=",
        "HOME=/root",
    ] {
        assert!(env.contains(&want), "no {want} in {env:?}");
    }
    assert!(
        env.iter()
            .all(|line| !line.starts_with("TAKEN_OUT") && !line.starts_with("NOT_SET")),
        "{env:?}"
    );
    // docker's: a name may hold a blank where a shell has parted the words, not in a file.
    let blank = berth.run(["run", "--rm", "-e", "A B=1", "busybox", "env"]).ok();
    assert!(blank.lines().any(|line| line == "A B=1"), "{blank}");
    std::fs::write(&file, "A B=1\n").expect("write");
    let flags = ["run", "--rm", "--env-file", file.to_str().expect("UTF-8")];
    let bad = berth.run(flags.iter().chain(&["busybox", "true"]));
    assert_eq!(bad.code, 125, "{}", bad.stderr);
    assert!(bad.stderr.contains("bad name \"A B\""), "{}", bad.stderr);
    let bad = berth.run(["run", "--rm", "-e", "=x", "busybox", "true"]);
    assert_eq!(bad.code, 125, "{}", bad.stderr);
    assert!(bad.stderr.contains("=x"), "{}", bad.stderr);
}

#[test]
fn the_working_directory_is_made_when_missing() {
    let Some(berth) = berth() else { return };
    assert_eq!(inside(&berth, &["-w", "/var"], "pwd"), "/var");
    assert_eq!(inside(&berth, &["-w", "/made/for/it"], "pwd"), "/made/for/it");
    let refused = berth.run(["run", "--rm", "-w", "not/absolute", "busybox", "true"]);
    assert_eq!(refused.code, 125);
    assert!(
        refused.stderr.contains("absolute") && refused.stderr.contains("not/absolute"),
        "{}",
        refused.stderr
    );
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn users_are_looked_up_in_the_image() {
    let Some(berth) = berth() else { return };
    for (user, want) in [
        // The first group is among the others too (CVE-2022-36109).
        (
            "user",
            "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)",
        ),
        (
            "1000",
            "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)",
        ),
        ("user:extra", "uid=1000(user) gid=2000(extra) groups=2000(extra)"),
        ("5:6", "uid=5 gid=6 groups=6"),
    ] {
        assert_eq!(inside(&berth, &["-u", user], "id"), want, "{user}");
    }
    assert_eq!(
        inside(&berth, &["-u", "user", "--group-add", "77"], "id -G"),
        "1000 77 2000"
    );
    let unknown = berth.run(["run", "--rm", "-u", "nobody-here", "busybox", "true"]);
    assert_eq!(unknown.code, 125);
    assert!(
        unknown.stderr.contains("nobody-here") && unknown.stderr.contains("passwd"),
        "{}",
        unknown.stderr
    );
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn entrypoint_replaces_and_clears() {
    let Some(berth) = berth() else { return };
    let tree = berth.scratch().join("busybox.tar");
    let _ = berth
        .run([
            "import",
            "--change",
            "ENTRYPOINT [\"echo\", \"from the image\"]",
            "--change",
            "CMD [\"and its command\"]",
            tree.to_str().expect("UTF-8"),
            "speaker",
        ])
        .ok();
    let run = |flags: &[&str]| berth.run(["run", "--rm"].iter().chain(flags)).ok();
    assert_eq!(run(&["speaker"]), "from the image and its command");
    assert_eq!(run(&["speaker", "mine"]), "from the image mine");
    assert_eq!(run(&["--entrypoint", "basename", "speaker", "/a/b"]), "b");
    assert_eq!(run(&["--entrypoint", "", "speaker", "echo", "bare"]), "bare");
    let nothing = berth.run(["run", "--rm", "--entrypoint", "", "speaker"]);
    assert_eq!(nothing.code, 125);
    assert!(nothing.stderr.contains("no command"), "{}", nothing.stderr);
}

#[test]
fn init_forwards_signals_and_reaps() {
    let Some(berth) = berth() else { return };
    assert_eq!(inside(&berth, &["--init"], "cat /proc/1/comm"), "docker-init");
    // The shell's orphan ends as a child of PID 1, and no zombie stays.
    let script = "(sleep 0.1 &) ; sleep 0.5; ps -o stat | grep -c Z || true";
    assert_eq!(inside(&berth, &["--init"], script), "0");
    let script = "trap 'echo stopped; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let _ = berth
        .run([
            "run",
            "-d",
            "--init",
            "--name",
            "with-init",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
    eventually("it is ready", || {
        berth.run(["logs", "with-init"]).stdout.contains("ready")
    });
    let _ = berth.run(["stop", "with-init"]).ok();
    assert_eq!(berth.run(["wait", "with-init"]).ok(), "3");
    assert_eq!(berth.run(["logs", "with-init"]).ok(), "ready\nstopped");
    remove_all(&berth);
}

#[test]
fn names_of_the_host_are_its_own() {
    let Some(berth) = berth() else { return };
    assert_eq!(
        inside(
            &berth,
            &["--hostname", "box", "--domainname", "example.test"],
            "hostname; cat /etc/hostname; echo $HOSTNAME; cat /proc/sys/kernel/domainname"
        ),
        "box\nbox\nbox\nexample.test"
    );
    let id = berth
        .run(["create", "--name", "by-id", "busybox", "hostname"])
        .ok();
    assert_eq!(berth.run(["start", "-a", "by-id"]).ok(), id[..12]);
    remove_all(&berth);
}

#[test]
fn labels_come_from_flags_and_files() {
    let Some(berth) = berth() else { return };
    let file = berth.scratch().join("labels");
    std::fs::write(&file, "from=file\nover=file\n").expect("write");
    let mut create = berth.command([
        "create",
        "--name",
        "labelled",
        "-l",
        "over=flag",
        "--label",
        "bare",
    ]);
    let created = create
        .arg("--label-file")
        .arg(&file)
        .args(["busybox", "true"])
        .output();
    let _ = berth_tests::Output::from(created.expect("start berth")).ok();
    let labels = field(&berth, "labelled", "/Config/Labels");
    assert_eq!(
        labels,
        serde_json::json!({"from": "file", "over": "flag", "bare": ""})
    );
    let by_label = |filter: &str| {
        berth
            .run(["ps", "-a", "--filter", filter, "--format", "{{.Names}}"])
            .ok()
    };
    assert_eq!(by_label("label=over=flag"), "labelled");
    assert_eq!(by_label("label=over=file"), "");
}

#[test]
fn the_stop_signal_and_its_timeout_are_the_containers() {
    let Some(berth) = berth() else { return };
    let script = "trap 'echo usr1; exit 4' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let start = |name: &str, flags: &[&str]| {
        let command = [
            &["run", "-d", "--name", name],
            flags,
            &["busybox", "sh", "-c", script],
        ];
        let _ = berth.run(command.concat()).ok();
        eventually("it is ready", || {
            berth.run(["logs", name]).stdout.contains("ready")
        });
    };
    start("polite", &["--stop-signal", "SIGUSR1"]);
    let _ = berth.run(["stop", "polite"]).ok();
    assert_eq!(field(&berth, "polite", "/State/ExitCode"), 4);
    // It ignores TERM; without its own timeout of no seconds this would take ten.
    start("stubborn", &["--stop-timeout", "0"]);
    let _ = berth.run(["stop", "stubborn"]).ok();
    assert_eq!(field(&berth, "stubborn", "/State/ExitCode"), 137);
    assert_eq!(field(&berth, "stubborn", "/Config/StopTimeout"), 0);
    remove_all(&berth);
}

#[test]
fn the_id_file_is_written_once() {
    let Some(berth) = berth() else { return };
    let file = berth.scratch().join("id");
    let path = file.to_str().expect("UTF-8");
    let id = berth
        .run(["run", "-d", "--cidfile", path, "busybox", "sleep", "600"])
        .ok();
    assert_eq!(std::fs::read_to_string(&file).expect("read"), id);
    let again = berth.run(["run", "-d", "--cidfile", path, "busybox", "sleep", "600"]);
    assert_eq!(again.code, 125);
    assert!(again.stderr.contains(path), "{}", again.stderr);
    let nowhere = berth.run([
        "run",
        "-d",
        "--cidfile",
        "/no/such/place",
        "busybox",
        "sleep",
        "600",
    ]);
    assert_eq!(nowhere.code, 125);
    assert!(nowhere.stderr.contains("/no/such/place"), "{}", nowhere.stderr);
    assert_eq!(
        berth.run(["ps", "-aq", "--no-trunc"]).ok(),
        id,
        "neither refusal left a container"
    );
    remove_all(&berth);
}

#[test]
fn exit_codes_are_dockers() {
    let Some(berth) = berth() else { return };
    for (command, code) in [
        (&["sh", "-c", "exit 0"][..], 0),
        (&["sh", "-c", "exit 42"], 42),
        (&["sh", "-c", "exit 300"], 44),
        // Of PID 1 a signal of its own is ignored; a child's is not.
        (&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (&["nonesuch"], 127),
        (&["/bin/nonesuch"], 127),
        (&["/etc/passwd"], 126),
        (&["/etc"], 126),
    ] {
        let ran = berth.run(["run", "--rm", "busybox"].iter().chain(command));
        assert_eq!(ran.code, code, "{command:?}: {}", ran.stderr);
    }
    let killed = berth.run(["run", "-d", "--name", "killed", "busybox", "sleep", "600"]);
    let _ = killed.ok();
    let _ = berth.run(["kill", "-s", "TERM", "killed"]).code;
    let _ = berth.run(["kill", "killed"]).ok();
    assert_eq!(berth.run(["wait", "killed"]).ok(), "137");
    remove_all(&berth);
}
