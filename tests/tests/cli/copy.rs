//! `cp` and `export`, of containers that run and that do not.

use std::path::Path;
use std::process::{Command, Stdio};

use berth_tests::{Berth, Output};

use crate::fixture::{berth, eventually, remove_all, sleeping};

/// The names in a tar archive.
fn names(archive: &Path) -> Vec<String> {
    let listed = Command::new("tar")
        .arg("-tf")
        .arg(archive)
        .output()
        .expect("start tar");
    let listed = Output::from(listed).ok();
    listed.lines().map(str::to_owned).collect()
}

/// A container, running or created and never started, with the volume `data` on /data and /etc read-only from the host.
fn mounted(berth: &Berth, name: &str, verb: &[&str]) {
    let shared = berth.scratch().join("shared");
    std::fs::create_dir_all(&shared).expect("make a directory");
    std::fs::write(shared.join("host-file"), "of the host").expect("write");
    let bind = format!("{}:/bound:ro", shared.display());
    let flags = ["--name", name, "-v", "data:/data", "-v", &bind];
    let _ = berth
        .run(verb.iter().chain(&flags).chain(&["busybox", "sleep", "600"]))
        .ok();
}

#[test]
fn files_go_in_and_out() {
    let Some(berth) = berth() else { return };
    let local = berth.scratch().join("file");
    std::fs::write(&local, "content").expect("write");
    let local = local.to_str().expect("UTF-8");
    sleeping(&berth, "running", &[]);
    let _ = berth
        .run(["create", "--name", "stopped", "busybox", "cat", "/tmp/file"])
        .ok();
    for name in ["running", "stopped"] {
        let copied = berth.run(["cp", local, &format!("{name}:/tmp/file")]);
        assert_eq!(
            (copied.code, copied.stderr.as_str()),
            (0, ""),
            "quiet without a terminal"
        );
        let back = berth.scratch().join(format!("back-{name}"));
        let _ = berth
            .run(["cp", &format!("{name}:/tmp/file"), back.to_str().expect("UTF-8")])
            .ok();
        assert_eq!(std::fs::read_to_string(&back).expect("read"), "content");
        let missing = berth.run(["cp", &format!("{name}:/no/such"), "/tmp"]);
        assert_eq!(missing.code, 1);
        assert!(missing.stderr.contains("/no/such"), "{}", missing.stderr);
    }
    assert_eq!(berth.run(["exec", "running", "cat", "/tmp/file"]).ok(), "content");
    assert_eq!(berth.run(["start", "-a", "stopped"]).ok(), "content");
    let both = berth.run(["cp", "running:/tmp/file", "stopped:/tmp"]);
    assert_ne!(both.code, 0);
    let neither = berth.run(["cp", "/a", "/b"]);
    assert_eq!(neither.code, 1);
    remove_all(&berth);
}

#[test]
fn a_stopped_container_shows_its_volumes() {
    let Some(berth) = berth() else { return };
    mounted(&berth, "stopped", &["create"]);
    let file = berth.scratch().join("file");
    std::fs::write(&file, "into the volume").expect("write");
    let _ = berth
        .run(["cp", file.to_str().expect("UTF-8"), "stopped:/data/file"])
        .ok();
    let volume = berth.root().join("volumes/data/_data/file");
    assert_eq!(
        std::fs::read_to_string(volume).expect("it is in the volume"),
        "into the volume"
    );
    let back = berth.scratch().join("back");
    let _ = berth
        .run(["cp", "stopped:/bound/host-file", back.to_str().expect("UTF-8")])
        .ok();
    assert_eq!(std::fs::read_to_string(&back).expect("read"), "of the host");
    let refused = berth.run(["cp", back.to_str().expect("UTF-8"), "stopped:/bound/new"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("Read-only"), "{}", refused.stderr);
    let _ = berth.run(["start", "stopped"]).ok();
    assert_eq!(
        berth.run(["exec", "stopped", "cat", "/data/file"]).ok(),
        "into the volume"
    );
    remove_all(&berth);
}

#[test]
fn a_read_only_root_takes_no_copies() {
    let Some(berth) = berth() else { return };
    let file = berth.scratch().join("file");
    std::fs::write(&file, "x").expect("write");
    let file = file.to_str().expect("UTF-8");
    let _ = berth
        .run([
            "create",
            "--read-only",
            "--name",
            "sealed",
            "-v",
            "data:/data",
            "busybox",
            "sleep",
            "600",
        ])
        .ok();
    for _ in ["created", "running"] {
        let refused = berth.run(["cp", file, "sealed:/file"]);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("Read-only"), "{}", refused.stderr);
        let _ = berth.run(["cp", file, "sealed:/data/file"]).ok();
        // Starting what runs already is fine, as docker has it.
        let _ = berth.run(["start", "sealed"]).ok();
    }
    remove_all(&berth);
}

/// A copy into a container that does not run keeps it from starting until it is done: two mounts of one upper directory
/// would not see one another's files.
#[test]
fn a_stopped_container_waits_for_the_copy() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run([
            "create",
            "--name",
            "stopped",
            "busybox",
            "sh",
            "-c",
            "cat /tmp/slow; sleep 600",
        ])
        .ok();
    let archive = berth.scratch().join("slow.tar");
    std::fs::write(berth.scratch().join("slow"), "whole\n").expect("write");
    let packed = Command::new("tar")
        .arg("-C")
        .arg(berth.scratch())
        .arg("-cf")
        .arg(&archive)
        .arg("slow")
        .status();
    assert!(packed.expect("start tar").success());
    let bytes = std::fs::read(&archive).expect("read");
    let mut copy = berth
        .command(["cp", "-", "stopped:/tmp"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start berth");
    let mut stdin = copy.stdin.take().expect("a pipe");
    use std::io::Write as _;
    stdin.write_all(&bytes[..100]).expect("write");
    eventually("the copy has begun", || holds_lock(&berth));
    let mut start = berth.command(["start", "stopped"]).spawn().expect("start berth");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let waits = start.try_wait().expect("ask").is_none();
    stdin.write_all(&bytes[100..]).expect("write");
    drop(stdin);
    assert!(copy.wait().expect("wait").success());
    assert!(start.wait().expect("wait").success());
    assert!(waits, "it was started while files were being copied");
    eventually("it saw the whole file", || {
        berth.run(["logs", "stopped"]).stdout == "whole\n"
    });
    remove_all(&berth);
}

#[test]
fn a_copy_that_is_killed_leaves_nothing() {
    let Some(berth) = berth() else { return };
    mounted(&berth, "stopped", &["create"]);
    let mut copy = berth
        .command(["cp", "-", "stopped:/data"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start berth");
    eventually("the copy has begun", || holds_lock(&berth));
    copy.kill().expect("kill berth");
    let _ = copy.wait();
    assert_eq!(berth.left(), Vec::<String>::new());
    let _ = berth.run(["start", "stopped"]).ok();
    remove_all(&berth);
}

/// Whether somebody holds the flock of the store's only container.
fn holds_lock(berth: &Berth) -> bool {
    use rustix::fs::{FlockOperation, flock};
    let mut containers = std::fs::read_dir(berth.root().join("containers")).expect("list");
    let directory = containers.next().expect("a container").expect("an entry").path();
    let open = std::fs::File::open(directory).expect("open");
    flock(&open, FlockOperation::NonBlockingLockExclusive).is_err()
}

#[test]
fn export_is_the_root_alone() {
    let Some(berth) = berth() else { return };
    for (name, verb) in [("running", &["run", "-d"][..]), ("made", &["create"])] {
        mounted(&berth, name, verb);
        let file = berth.scratch().join("own");
        std::fs::write(&file, "own").expect("write");
        let _ = berth
            .run(["cp", file.to_str().expect("UTF-8"), &format!("{name}:/own")])
            .ok();
        let _ = berth
            .run([
                "cp",
                file.to_str().expect("UTF-8"),
                &format!("{name}:/data/in-volume"),
            ])
            .ok();
        let archive = berth.scratch().join(format!("{name}.tar"));
        let _ = berth
            .run(["export", "-o", archive.to_str().expect("UTF-8"), name])
            .ok();
        let names = names(&archive);
        let has = |name: &str| {
            names
                .iter()
                .any(|n| n.trim_start_matches("./").trim_end_matches('/') == name)
        };
        for want in ["own", "bin/busybox", "etc/passwd", "proc", "sys", "dev"] {
            assert!(has(want), "{name}: no {want} in {names:?}");
        }
        let strange: Vec<_> = names
            .iter()
            .map(|n| n.trim_start_matches("./"))
            .filter(|n| {
                ["proc/", "sys/", "data/", "bound/"]
                    .iter()
                    .any(|dir| n.starts_with(dir) && n.len() > dir.len())
            })
            .collect();
        assert!(strange.is_empty(), "{name}: mounts were exported: {strange:?}");
        // What was exported runs.
        let image = format!("from-{name}");
        let _ = berth
            .run(["import", archive.to_str().expect("UTF-8"), &image])
            .ok();
        assert_eq!(berth.run(["run", "--rm", &image, "cat", "/own"]).ok(), "own");
    }
    let missing = berth.run(["export", "no-such"]);
    assert_eq!(missing.code, 1);
    let nowhere = berth.run(["export", "-o", "/no/such/file", "made"]);
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.stderr.contains("/no/such/file"), "{}", nowhere.stderr);
    remove_all(&berth);
}

#[test]
fn archives_go_through_pipes() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &[]);
    let tar = berth
        .command(["cp", "box:/etc", "-"])
        .output()
        .expect("start berth");
    let path = berth.scratch().join("etc.tar");
    std::fs::write(&path, &tar.stdout).expect("write");
    assert!(names(&path).iter().any(|n| n == "etc/passwd"));
    let into = std::fs::File::open(&path).expect("open");
    let copied = berth
        .command(["cp", "-", "box:/tmp"])
        .stdin(into)
        .output()
        .expect("start berth");
    let _ = Output::from(copied).ok();
    assert_eq!(
        berth.run(["exec", "box", "cat", "/tmp/etc/passwd"]).ok(),
        berth.run(["exec", "box", "cat", "/etc/passwd"]).ok()
    );
    remove_all(&berth);
}

#[test]
fn directories_land_as_docker_says() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &[]);
    let tree = berth.scratch().join("tree");
    std::fs::create_dir_all(tree.join("below")).expect("make directories");
    std::fs::write(tree.join("below/file"), "x").expect("write");
    rustix::fs::chown(
        tree.join("below/file"),
        Some(rustix::fs::Uid::from_raw(5)),
        Some(rustix::fs::Gid::from_raw(6)),
    )
    .expect("chown");
    let tree = tree.to_str().expect("UTF-8");
    let copy = |flags: &[&str], from: &str, to: &str| {
        let ran = berth.run([&["cp"], flags, &[from, to]].concat());
        assert_eq!(ran.code, 0, "{from} to {to}: {}", ran.stderr);
    };
    let stat = |path: &str| berth.run(["exec", "box", "stat", "-c", "%u:%g", path]).ok();
    // Into what exists: below its name. Onto what does not: under that name. With a dot: its content.
    copy(&[], tree, "box:/tmp");
    assert_eq!(stat("/tmp/tree/below/file"), "0:0", "as docker: root's");
    copy(&[], tree, "box:/new");
    assert_eq!(stat("/new/below/file"), "0:0");
    copy(&["-a"], &format!("{tree}/."), "box:/var");
    assert_eq!(stat("/var/below/file"), "5:6", "-a keeps owners");
    let missing = berth.run(["cp", &format!("{tree}/below/file"), "box:/no/such/dir/"]);
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.contains("copy ") && missing.stderr.contains("to box:/no/such/dir/: "),
        "which side is meant: {}",
        missing.stderr
    );
    let gone = berth.run(["cp", "box:/no/such/file", "."]);
    assert!(
        gone.stderr.contains("copy box:/no/such/file to .: "),
        "{}",
        gone.stderr
    );
    let onto = berth.run(["cp", tree, "box:/etc/passwd"]);
    assert_eq!(onto.code, 1, "a directory cannot replace a file");
    // Links: copied as they are, and with -L followed.
    let _ = berth
        .run(["exec", "box", "ln", "-s", "/etc/passwd", "/tmp/link"])
        .ok();
    let out = berth.scratch().join("out");
    let out = out.to_str().expect("UTF-8");
    copy(&["-L"], "box:/tmp/link", out);
    assert!(std::fs::read_to_string(out).expect("read").contains("root:"));
    // Leading outside, they lead nowhere: the container's /etc, not the host's.
    let _ = berth
        .run(["exec", "box", "ln", "-s", "../../../../../../etc", "/tmp/up"])
        .ok();
    copy(&[], &format!("{tree}/below/file"), "box:/tmp/up/landed");
    assert_eq!(stat("/etc/landed"), "0:0");
    assert!(!std::path::Path::new("/etc/landed").exists());
    remove_all(&berth);
}
