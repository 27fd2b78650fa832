//! Processes killed at any point, and a host that lost its run state: a later `ps` tells the truth and `rm` cleans up.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use berth_tests::{Berth, Need, eventually, require};

fn kill_dash_9(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("pids are positive");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Cgroup directories of a container with this id, in any hierarchy.
fn cgroups_of(id: &str) -> Vec<String> {
    let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else {
        return Vec::new();
    };
    let mut directories: Vec<_> = hierarchies.flatten().map(|entry| entry.path()).collect();
    directories.push(Path::new("/sys/fs/cgroup").to_owned());
    directories
        .iter()
        .map(|hierarchy| hierarchy.join("berth").join(id))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect()
}

fn assert_nothing_left(berth: &Berth, ids: &[String]) {
    eventually("no mount is left", || berth.mounts_left().is_empty());
    eventually("no shim is left", || berth.shims().is_empty());
    for id in ids {
        eventually("no cgroup is left", || cgroups_of(id).is_empty());
    }
    let listed = berth.run(["ps", "-aq"]).ok();
    assert_eq!(listed, "", "containers are left");
}

#[test]
fn killed_shim_is_noticed_and_cleaned_up() {
    if !require(&[Need::Root, Need::Program("busybox"), Need::Program("ip")]) {
        return;
    }
    let berth = Berth::in_own_network();
    let id = berth
        .run(["run", "-d", "--name", "victim", "busybox", "sleep", "600"])
        .ok();
    let shim = berth.shims();
    assert_eq!(shim.len(), 1, "one shim per container");
    kill_dash_9(shim[0]);

    let mut listed = String::new();
    eventually("ps no longer calls it running", || {
        listed = berth.run(["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).ok();
        !listed.contains("Up ")
    });
    assert!(listed.starts_with("victim "), "it is still listed: {listed}");
    let _ = berth.run(["rm", "victim"]).ok();
    assert_nothing_left(&berth, &[id]);
}

#[test]
fn berth_killed_at_any_point_of_run_leaves_nothing_that_rm_cannot_clean() {
    if !require(&[Need::Root, Need::Program("busybox"), Need::Program("ip")]) {
        return;
    }
    let berth = Berth::in_own_network();
    for round in 0..40u64 {
        let name = format!("cut-{round}");
        let mut process = berth
            .command(["run", "-d", "--name", &name, "busybox", "sleep", "600"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start berth");
        // From before the first record to after the start.
        std::thread::sleep(Duration::from_micros(round * 700));
        process.kill().expect("kill berth");
        process.wait().expect("wait for berth");
        let removed = berth.run(["rm", "--force", &name]);
        let gone = removed.code == 0 || removed.stderr.contains("no such container");
        assert!(gone, "round {round}: {} {}", removed.code, removed.stderr);
    }
    eventually("every name is free again", || {
        let listed = berth.run(["ps", "-aq"]).ok();
        for id in listed.split_whitespace() {
            berth.run(["rm", "--force", id]);
        }
        listed.is_empty()
    });
    assert_nothing_left(&berth, &[]);
    let again = berth
        .run(["run", "--rm", "--name", "cut-0", "busybox", "echo", "fine"])
        .ok();
    assert_eq!(again, "fine");
}

#[test]
fn shim_killed_at_any_point_of_start_or_stop_is_cleaned_up() {
    if !require(&[Need::Root, Need::Program("busybox"), Need::Program("ip")]) {
        return;
    }
    let berth = Berth::in_own_network();
    for round in 0..30u64 {
        let name = format!("shim-{round}");
        let mut process = berth
            .command(["run", "-d", "--name", &name, "busybox", "sleep", "600"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start berth");
        let deadline = Instant::now() + Duration::from_millis(round * 2);
        loop {
            let found = berth.shims();
            if !found.is_empty() && Instant::now() >= deadline {
                found.into_iter().for_each(kill_dash_9);
                break;
            }
            if process.try_wait().expect("wait for berth").is_some() && Instant::now() >= deadline {
                berth.shims().into_iter().for_each(kill_dash_9);
                break;
            }
        }
        process.wait().expect("wait for berth");
        let removed = berth.run(["rm", "--force", &name]);
        let gone = removed.code == 0 || removed.stderr.contains("no such container");
        assert!(gone, "round {round}: {} {}", removed.code, removed.stderr);
        assert!(
            berth.mounts_left().is_empty(),
            "round {round}: {:?}",
            berth.mounts_left()
        );
    }
    assert_nothing_left(&berth, &[]);
}

/// What a power cut does: every process gone at once, every mount gone, /run empty.
fn power_cut(berth: &Berth) {
    for pid in berth.shims() {
        kill_dash_9(pid);
    }
    eventually("the shim is gone", || berth.shims().is_empty());
    for pid in std::fs::read_dir("/proc").expect("read /proc").flatten() {
        let below = berth.root();
        let root = std::fs::read_to_string(pid.path().join("mountinfo")).unwrap_or_default();
        let of_container = root
            .lines()
            .next()
            .is_some_and(|line| line.contains(below.to_str().expect("UTF-8")));
        if let (true, Some(pid)) = (
            of_container,
            pid.file_name().to_str().and_then(|name| name.parse().ok()),
        ) {
            kill_dash_9(pid);
        }
    }
    for line in berth.mounts_left().iter().rev() {
        let target = line.split(' ').nth(4).expect("mountinfo has a mount point");
        let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
    }
    std::fs::remove_dir_all(berth.state()).expect("wipe the run state");
}

#[test]
fn reboot_loses_the_run_state_and_nothing_else() {
    if !require(&[Need::Root, Need::Program("busybox"), Need::Program("ip")]) {
        return;
    }
    let berth = Berth::in_own_network();
    let _ = berth
        .run([
            "run",
            "-d",
            "--name",
            "before",
            "busybox",
            "sh",
            "-c",
            "echo kept > /file; sleep 600",
        ])
        .ok();
    eventually("the file is written", || {
        berth.run(["exec", "before", "cat", "/file"]).code == 0
    });

    let gone = berth
        .run(["run", "-d", "--name", "gone", "busybox", "sleep", "600"])
        .ok();
    assert!(!cgroups_of(&gone).is_empty(), "where it is while it runs");

    power_cut(&berth);

    let listed = berth.run(["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).ok();
    assert!(listed.contains("before Exited"), "{listed}");
    // A real boot has none; here they must not wait for one.
    assert_eq!(cgroups_of(&gone), Vec::<String>::new());
    let _ = berth.run(["rm", "gone"]).ok();
    let _ = berth.run(["start", "before"]).ok();
    eventually("it runs again", || {
        berth.run(["exec", "before", "true"]).code == 0
    });
    assert_eq!(berth.run(["exec", "before", "cat", "/file"]).ok(), "kept");
    let _ = berth.run(["rm", "-f", "before"]).ok();
    assert_nothing_left(&berth, &[]);
}

#[test]
fn a_boot_starts_what_its_policy_says() {
    if !require(&[Need::Root, Need::Program("busybox"), Need::Program("ip")]) {
        return;
    }
    let berth = Berth::in_own_network();
    for (name, policy) in [
        ("plain", "no"),
        ("failing", "on-failure"),
        ("always", "always"),
        ("always-stopped", "always"),
        ("unless", "unless-stopped"),
        ("unless-stopped", "unless-stopped"),
    ] {
        let flags = ["run", "-d", "--name", name, "--restart", policy];
        let _ = berth
            .run([&flags[..], &["busybox", "sleep", "600"]].concat())
            .ok();
        if name.ends_with("-stopped") {
            let _ = berth.run(["stop", "-t", "0", name]).ok();
        }
    }
    let never = [
        "create",
        "--name",
        "never",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "600",
    ];
    let _ = berth.run(never).ok();
    power_cut(&berth);

    assert_eq!(berth.run(["ps", "-q"]).ok(), "", "nothing starts by itself");
    let boot = ["start", "--all", "--filter", "should-start-on-boot=true"];
    assert_eq!(berth.run(boot).ok(), "always\nalways-stopped\nunless");
    assert_eq!(berth.run(boot).ok(), "", "they run");
    assert_eq!(
        berth.run(["ps", "--format", "{{.Names}}"]).ok(),
        "unless\nalways-stopped\nalways"
    );
}
