//! Mounts of the specification, seen from inside.

use std::path::{Path, PathBuf};

use berth_tests::{Bundle, Need, require};
use serde_json::{Value, json};

/// A tmpfs on the host, gone when dropped; declare it after the bundle it lies in.
struct HostMount(PathBuf);

impl HostMount {
    fn new(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).expect("make a mount point");
        rustix::mount::mount("tmpfs", &at, "tmpfs", rustix::mount::MountFlags::empty(), None)
            .expect("mount a tmpfs");
        Self(at)
    }

    fn shared(self) -> Self {
        rustix::mount::mount_change(&self.0, rustix::mount::MountPropagationFlags::SHARED)
            .expect("make it shared");
        self
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

fn with_mount(script: &str, mount: Value) -> Bundle {
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    add(&mut bundle, mount);
    bundle
}

fn add(bundle: &mut Bundle, mount: Value) {
    bundle.config["mounts"]
        .as_array_mut()
        .expect("mounts is a list")
        .push(mount);
}

fn bind(source: &Path, options: &[&str]) -> Value {
    json!({"destination": "/data", "type": "bind", "source": source, "options": options})
}

#[test]
fn a_read_only_root_takes_no_file_and_its_mounts_do() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = with_mount(
        "touch /file || echo refused; touch /scratch/file && echo taken",
        json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}),
    );
    bundle.config["root"]["readonly"] = json!(true);
    assert_eq!(bundle.verb(&["run"]).ok(), "refused\ntaken");
    assert!(!bundle.rootfs().join("file").exists());
}

#[test]
fn plain_options_stop_at_the_mount_and_recursive_ones_go_on() {
    if !require(&[Need::Root]) {
        return;
    }
    let script =
        "for d in /data /data/sub; do touch $d/file 2>/dev/null && echo written || echo refused; done";
    for (options, expected) in [
        (["rbind", "ro"], "refused\nwritten"),
        (["rbind", "rro"], "refused\nrefused"),
        (["rbind", "rw"], "written\nwritten"),
    ] {
        let mut bundle = Bundle::new(&["sh", "-c", script]);
        let host = HostMount::new(bundle.path().join("host"));
        let sub = HostMount::new(host.0.join("sub"));
        add(&mut bundle, bind(&host.0, &options));
        assert_eq!(bundle.verb(&["run"]).ok(), expected, "{options:?}");
        drop((sub, host));
    }
}

#[test]
fn attributes_are_the_ones_listed() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&[
        "sh",
        "-c",
        "awk '$5 == \"/data\" {print $6}' /proc/self/mountinfo",
    ]);
    let host = bundle.path().join("host");
    std::fs::create_dir(&host).expect("make a directory");
    add(
        &mut bundle,
        bind(&host, &["bind", "nosuid", "nodev", "noexec", "ro", "noatime"]),
    );
    let flags = bundle.verb(&["run"]).ok();
    for flag in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(flags.split(',').any(|f| f == flag), "{flag} is not in {flags}");
    }
}

#[test]
fn propagation_is_as_asked() {
    if !require(&[Need::Root]) {
        return;
    }
    let script = "awk '$5 == \"/data\" {for (i = 7; $i != \"-\"; i++) print $i}' /proc/self/mountinfo";
    // The root's goes with each as engines write them: a recursive one would win over what a mount says.
    let fields: [(&str, &str, &[&str]); 5] = [
        ("private", "private", &[]),
        ("slave", "slave", &["master:"]),
        ("rslave", "rslave", &["master:"]),
        ("rshared", "shared", &["shared:"]),
        ("unbindable", "private", &["unbindable"]),
    ];
    for (option, root, expected) in fields {
        let mut bundle = Bundle::new(&["sh", "-c", script]);
        let host = HostMount::new(bundle.path().join("host")).shared();
        add(&mut bundle, bind(&host.0, &["rbind", option]));
        bundle.config["linux"]["rootfsPropagation"] = json!(root);
        let printed = bundle.verb(&["run"]).ok();
        let found: Vec<&str> = printed.lines().collect();
        assert_eq!(found.len(), expected.len(), "{option}: {printed}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{option}: {printed}");
        }
    }
}

#[test]
fn later_mounts_of_the_host_reach_a_slave_and_not_a_private_mount() {
    if !require(&[Need::Root]) {
        return;
    }
    for (option, reaches) in [("rslave", true), ("rprivate", false)] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        let host = HostMount::new(bundle.path().join("host")).shared();
        std::fs::create_dir(host.0.join("late")).expect("make a directory");
        add(&mut bundle, bind(&host.0, &["rbind", option]));
        bundle.config["linux"]["rootfsPropagation"] = json!("rslave");
        let _ = bundle.verb(&["create"]).ok();
        let _ = bundle.verb(&["start"]).ok();
        let late = HostMount::new(host.0.join("late"));
        std::fs::write(late.0.join("file"), "").expect("write a file");
        let seen = bundle.exec(&["sh", "-c", "ls /data/late"]);
        assert_eq!(seen == "file", reaches, "{option}");
        let _ = bundle.verb(&["delete", "--force"]).ok();
        bundle.assert_clean();
    }
}

#[test]
fn the_roots_propagation_is_as_asked() {
    if !require(&[Need::Root]) {
        return;
    }
    let script = "awk '$5 == \"/\" {for (i = 7; $i != \"-\"; i++) print $i}' /proc/self/mountinfo";
    for (propagation, expected) in [
        ("private", ""),
        ("shared", "shared:"),
        ("unbindable", "unbindable"),
    ] {
        let mut bundle = Bundle::new(&["sh", "-c", script]);
        bundle.config["linux"]["rootfsPropagation"] = json!(propagation);
        let printed = bundle.verb(&["run"]).ok();
        assert!(
            printed.starts_with(expected) && printed.is_empty() == expected.is_empty(),
            "{propagation}: {printed}"
        );
    }
}

#[test]
fn a_tmpfs_takes_a_copy_of_what_the_image_has() {
    if !require(&[Need::Root]) {
        return;
    }
    let script = "cat /seed/a/file; readlink /seed/link; stat -c %a:%u /seed/a; echo new >/seed/a/file";
    let bundle = with_mount(
        script,
        json!({"destination": "/seed", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
    );
    let seed = bundle.rootfs().join("seed");
    std::fs::create_dir_all(seed.join("a")).expect("make a directory");
    std::fs::write(seed.join("a/file"), "old\n").expect("write a file");
    std::os::unix::fs::symlink("a/file", seed.join("link")).expect("make a link");
    std::os::unix::fs::chown(seed.join("a"), Some(1234), None).expect("chown");
    std::fs::set_permissions(
        seed.join("a"),
        std::os::unix::fs::PermissionsExt::from_mode(0o710),
    )
    .expect("chmod");
    assert_eq!(bundle.verb(&["run"]).ok(), "old\na/file\n710:1234");
    assert_eq!(
        std::fs::read_to_string(seed.join("a/file")).expect("read"),
        "old\n",
        "the image is unchanged"
    );
}

#[test]
fn an_idmapped_mount_shows_other_owners() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["sh", "-c", "stat -c %u:%g /data/file"]);
    let host = HostMount::new(bundle.path().join("host"));
    std::fs::write(host.0.join("file"), "").expect("write a file");
    let mut mount = bind(&host.0, &["bind", "idmap"]);
    mount["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    mount["gidMappings"] = json!([{"containerID": 0, "hostID": 2000, "size": 10}]);
    add(&mut bundle, mount);
    assert_eq!(bundle.verb(&["run"]).ok(), "1000:2000");
}

#[test]
fn masked_and_read_only_paths_hide_and_refuse() {
    if !require(&[Need::Root]) {
        return;
    }
    let script = "cat /secret; ls -A /hidden; touch /hidden/x 2>/dev/null || echo full; \
        touch /fixed/x 2>/dev/null || echo fixed; cat /fixed/file; \
        echo 1 2>/dev/null >/proc/sys/kernel/domainname || echo sys";
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    for dir in ["hidden", "fixed"] {
        std::fs::create_dir(bundle.rootfs().join(dir)).expect("make a directory");
        std::fs::write(bundle.rootfs().join(dir).join("file"), "content\n").expect("write a file");
    }
    std::fs::write(bundle.rootfs().join("secret"), "secret\n").expect("write a file");
    bundle.config["linux"]["maskedPaths"] = json!(["/secret", "/hidden", "/not-there"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/fixed", "/proc/sys", "/not-there"]);
    assert_eq!(bundle.verb(&["run"]).ok(), "full\nfixed\ncontent\nsys");
}

#[test]
fn links_in_the_image_cannot_send_a_mount_to_the_host() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["sh", "-c", "cat /data/made/file; ls /escape/made"]);
    let outside = bundle.path().join("outside");
    let source = bundle.path().join("source");
    for dir in [&outside, &source] {
        std::fs::create_dir(dir).expect("make a directory");
    }
    std::fs::write(source.join("file"), "inside\n").expect("write a file");
    // One absolute, one climbing: both would be the host's directory if the host resolved them.
    std::os::unix::fs::symlink(&outside, bundle.rootfs().join("data")).expect("make a link");
    let climbing = format!("../../../../../../../../../..{}", outside.display());
    std::os::unix::fs::symlink(climbing, bundle.rootfs().join("escape")).expect("make a link");
    for destination in ["/data/made", "/escape/made", "/../../climbed"] {
        add(
            &mut bundle,
            json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]}),
        );
    }
    assert_eq!(bundle.verb(&["run"]).ok(), "inside\nfile");
    assert_eq!(
        std::fs::read_dir(&outside).expect("list").count(),
        0,
        "the host is untouched"
    );
    assert!(!bundle.path().join("climbed").exists());
}

#[test]
fn a_linked_proc_and_mounts_inside_proc_are_refused() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["true"]);
    std::fs::remove_dir(bundle.rootfs().join("proc")).expect("remove");
    std::os::unix::fs::symlink("tmp", bundle.rootfs().join("proc")).expect("make a link");
    let ran = bundle.verb(&["run"]);
    assert!(
        ran.code != 0 && ran.stderr.contains("/proc"),
        "{} {}",
        ran.code,
        ran.stderr
    );
    bundle.assert_clean();

    let bundle = with_mount(
        "true",
        json!({"destination": "/proc/self/attr", "type": "tmpfs", "source": "tmpfs"}),
    );
    let ran = bundle.verb(&["run"]);
    assert!(
        ran.code != 0 && ran.stderr.contains("mounts[4].destination"),
        "{} {}",
        ran.code,
        ran.stderr
    );
    bundle.assert_clean();
}

#[test]
fn devices_are_the_default_ones_and_those_listed() {
    if !require(&[Need::Root]) {
        return;
    }
    let script = "for d in null zero full random urandom tty ptmx extra; do [ -c /dev/$d ] || echo no $d; done; \
        stat -c %a:%u:%g:%t:%T /dev/extra; echo x >/dev/extra; readlink /dev/fd; readlink /dev/stdin; \
        head -c 4 /dev/zero | wc -c";
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.config["linux"]["devices"] = json!([{"path": "/dev/extra", "type": "c", "major": 1, "minor": 3,
        "fileMode": 0o640, "uid": 12, "gid": 34}]);
    bundle.config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]});
    let ran = bundle.verb(&["run"]);
    assert_eq!(ran.ok(), "640:12:34:1:3\n/proc/self/fd\n/proc/self/fd/0\n4");
}

#[test]
fn the_cgroup_mount_shows_the_containers_own_and_takes_no_write() {
    if !require(&[Need::Root]) {
        return;
    }
    let script = "cd /sys/fs/cgroup; [ -d pids ] && cd pids; grep -qx $$ cgroup.procs && echo own; \
        [ -e release_agent ] && echo agent; echo 0 2>/dev/null >cgroup.procs || echo refused";
    let options = ["ro", "nosuid", "noexec", "nodev", "relatime"];
    let bundle = with_mount(
        script,
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}),
    );
    assert_eq!(bundle.verb(&["run"]).ok(), "own\nrefused");
    bundle.assert_clean();
}

#[test]
fn a_bad_mount_is_named_and_leaves_nothing() {
    if !require(&[Need::Root]) {
        return;
    }
    for (mount, word) in [
        (
            json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["size=lots"]}),
            "size",
        ),
        (
            json!({"destination": "/data", "type": "bind", "source": "/not/there", "options": ["bind"]}),
            "/not/there",
        ),
        (
            json!({"destination": "/data", "type": "nosuchfs", "source": "x"}),
            "nosuchfs",
        ),
    ] {
        let bundle = with_mount("true", mount);
        let ran = bundle.verb(&["run"]);
        assert!(
            ran.code != 0 && ran.stderr.contains(word) && ran.stderr.contains("/data"),
            "{}",
            ran.stderr
        );
        bundle.assert_clean();
    }
}

#[test]
fn runc_makes_the_same_mounts() {
    if !require(&[Need::Root, Need::Program("runc")]) {
        return;
    }
    let script = "awk '{print $5, $6}' /proc/self/mountinfo | sort";
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    let host = HostMount::new(bundle.path().join("host"));
    std::fs::create_dir(host.0.join("sub")).expect("make a directory");
    let sub = HostMount::new(host.0.join("sub"));
    add(&mut bundle, bind(&host.0, &["rbind", "rro", "nosuid", "nodev"]));
    add(
        &mut bundle,
        json!({"destination": "/scratch/deep", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "size=64k"]}),
    );
    let ours = bundle.verb(&["run"]).ok();
    let theirs = std::process::Command::new("runc")
        .arg("--root")
        .arg(bundle.path().join("runc"))
        .args(["run", "--bundle"])
        .arg(bundle.path())
        .arg(&bundle.id)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("start runc");
    let theirs = berth_tests::Output::from(theirs).ok();
    // What only one of them binds from the host where nodes cannot be made is no difference in what was asked.
    let asked = |text: &str| -> Vec<String> {
        let listed = |line: &&str| {
            !line.starts_with("/dev/") || line.starts_with("/dev/pts ") || line.starts_with("/dev/shm ")
        };
        text.lines().filter(listed).map(str::to_owned).collect()
    };
    assert_eq!(asked(&ours), asked(&theirs));
    drop((sub, host));
}
