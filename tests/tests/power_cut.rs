//! Power cuts: what a command that returned has promised is on the disk, and what was under way is in nobody's way.
//!
//! `--root` is an ext4 on a loop device. What its image holds at a moment is what the disk would: the rest is in the kernel's
//! memory. A copy of the image, mounted elsewhere, is the host after the cut; `--state` is empty there, as after a reboot.

use std::time::Duration;

use berth_tests::{Berth, Disk, Need, require};

const NEEDS: [Need; 4] = [
    Need::Root,
    Need::Program("busybox"),
    Need::Program("ip"),
    Need::Program("mkfs.ext4"),
];

/// A `berth` with an image on a disk of its own, all of it flushed.
fn with_disk() -> Option<(Berth, Disk)> {
    let mut berth = Berth::new();
    berth.enter_network();
    let disk = Disk::ext4(&berth, 96 << 20)?;
    let archive = berth_tests::berth::busybox_archive(berth.scratch());
    let archive = archive.to_str().expect("temporary paths are UTF-8");
    let _ = berth.run(["import", archive, "busybox:latest"]).ok();
    rustix::fs::syncfs(std::fs::File::open(disk.path()).expect("open the disk")).expect("flush the disk");
    Some((berth, disk))
}

fn names(berth: &Berth) -> Vec<String> {
    let listed = berth.run(["ps", "-a", "--format", "{{.Names}}"]).ok();
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn a_container_that_was_promised_survives() {
    if !require(&NEEDS) {
        return;
    }
    let verbs: [(&str, &[&str]); 2] = [("create", &["create"]), ("run", &["run", "-d"])];
    for (what, verb) in verbs {
        let Some((berth, disk)) = with_disk() else { return };
        let arguments = [
            verb,
            &["--name", "promised", "-e", "WHAT=kept", "busybox", "sleep", "600"],
        ]
        .concat();
        let id = berth.run(arguments).ok();

        let mut after = Berth::new();
        after.enter_network();
        let Some(_disk) = disk.after_power_cut(&after) else {
            return;
        };
        // A cut ends what ran; here it would stay in the cgroup that both call by the container's id.
        let _ = berth.run(["rm", "-f", "promised"]).ok();
        assert_eq!(names(&after), ["promised"], "{what}");
        let format = "{{.Id}} {{.Config.Env}}";
        let inspected = after.run(["inspect", "--format", format, "promised"]).ok();
        assert!(
            inspected.starts_with(&id) && inspected.contains("WHAT=kept"),
            "{what}: {inspected}"
        );
        let taken = after.run(["create", "--name", "promised", "busybox", "true"]);
        assert!(
            taken.stderr.contains("promised"),
            "{what}: its name is taken: {}",
            taken.stderr
        );
        assert_eq!(names(&after), ["promised"], "{what}");
        let _ = after.run(["start", "promised"]).ok();
        let _ = after.run(["rm", "-f", "promised"]).ok();
    }
}

#[test]
fn a_creation_that_was_under_way_leaves_nothing_torn() {
    if !require(&NEEDS) {
        return;
    }
    let Some((berth, disk)) = with_disk() else { return };
    let mut promised = Vec::new();
    let rounds = 12u64;
    for round in 0..rounds {
        let name = format!("cut-{round}");
        let mut process = berth
            .command(["create", "--name", &name, "busybox", "true"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start berth");
        // From before the directory is made to after the flush; the last comes to its end however slow the machine is.
        if round + 1 < rounds {
            std::thread::sleep(Duration::from_millis(round * 3));
            process.kill().expect("kill berth");
        }
        if process.wait().expect("wait for berth").success() {
            promised.push(name.clone());
        }
        let after = Berth::new();
        let Some(_disk) = disk.after_power_cut(&after) else {
            return;
        };
        let listed = names(&after);
        for name in &promised {
            assert!(listed.contains(name), "round {round}: {name} of {listed:?}");
        }
        // Whatever is left of it, its name is free or its holder can be removed.
        let removed = after.run(["rm", "--force", &name]);
        let gone = removed.code == 0 || removed.stderr.contains("no such container");
        assert!(gone, "round {round}: {}", removed.stderr);
        let _ = after.run(["create", "--name", &name, "busybox", "true"]).ok();
        assert!(names(&after).contains(&name), "round {round}");
    }
    assert_eq!(promised.last(), Some(&format!("cut-{}", rounds - 1)));
}
