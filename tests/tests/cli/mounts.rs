//! `run`: mounts and the root file system.

use berth_tests::Output;

use crate::fixture::{berth, field, inside, remove_all};

#[test]
fn volumes_binds_and_their_options() {
    let Some(berth) = berth() else { return };
    let host = berth.scratch().join("shared");
    std::fs::create_dir(&host).expect("make a directory");
    std::fs::write(host.join("file"), "of the host").expect("write");
    let host = host.to_str().expect("UTF-8");
    assert_eq!(
        inside(
            &berth,
            &["-v", &format!("{host}:/mnt")],
            "cat /mnt/file; echo changed > /mnt/file"
        ),
        "of the host"
    );
    assert_eq!(
        std::fs::read_to_string(format!("{host}/file")).expect("read"),
        "changed\n"
    );
    assert_eq!(
        inside(
            &berth,
            &["-v", &format!("{host}:/mnt:ro")],
            "touch /mnt/new 2>&1 || true"
        ),
        "touch: /mnt/new: Read-only file system"
    );
    // Kept from one container to the next, filled from the image first.
    let _ = inside(&berth, &["-v", "named:/etc"], "echo more > /etc/more");
    assert_eq!(
        inside(&berth, &["-v", "named:/x"], "cat /x/more; grep -c root /x/passwd"),
        "more\n1"
    );
    let _ = inside(&berth, &["-v", "empty:/etc:nocopy"], "true");
    assert_eq!(
        inside(
            &berth,
            &["-v", "empty:/x"],
            "ls /x/passwd 2>/dev/null || echo none"
        ),
        "none"
    );
    // A missing source is made, as docker does for -v.
    let made = format!("{host}/made/below");
    let _ = inside(&berth, &["-v", &format!("{made}:/mnt")], "touch /mnt/file");
    assert!(std::path::Path::new(&made).join("file").exists());
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn mount_takes_keys() {
    let Some(berth) = berth() else { return };
    let host = berth.scratch().join("shared");
    std::fs::create_dir(&host).expect("make a directory");
    let host = host.to_str().expect("UTF-8");
    let bind = format!("type=bind,src={host},dst=/mnt,readonly");
    assert_eq!(
        inside(&berth, &["--mount", &bind], "touch /mnt/x 2>&1 || true"),
        "touch: /mnt/x: Read-only file system"
    );
    assert_eq!(
        inside(
            &berth,
            &["--mount", "type=volume,src=named,dst=/v"],
            "echo x > /v/x; cat /v/x"
        ),
        "x"
    );
    let tmpfs = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700";
    assert_eq!(
        inside(
            &berth,
            &["--mount", tmpfs],
            "stat -c %a /t; df -k /t | tail -n 1 | awk '{print $2}'"
        ),
        "700\n1024"
    );
    let missing = format!("type=bind,src={host}/missing,dst=/mnt");
    let refused = berth.run(["run", "--rm", "--mount", &missing, "busybox", "true"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("missing"), "{}", refused.stderr);
    assert!(!std::path::Path::new(&format!("{host}/missing")).exists());
    for bad in [
        "type=bind,dst=/mnt",
        "type=nfs,dst=/mnt",
        "dst=relative",
        "type=tmpfs,dst=/t,nonsense=1",
    ] {
        let refused = berth.run(["run", "--rm", "--mount", bad, "busybox", "true"]);
        assert_eq!(refused.code, 125, "{bad}");
        assert!(refused.stderr.contains(bad), "{}", refused.stderr);
    }
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn tmpfs_and_the_size_of_shared_memory() {
    let Some(berth) = berth() else { return };
    let script = "grep ' /t ' /proc/mounts; df -k /dev/shm | tail -n 1 | awk '{print $2}'";
    let shown = inside(
        &berth,
        &["--tmpfs", "/t:size=64k,exec,mode=750", "--shm-size", "2m"],
        script,
    );
    let (mount, shm) = shown.split_once('\n').expect("two lines");
    for want in ["tmpfs /t tmpfs rw,", "nosuid", "nodev", "size=64k", "mode=750"] {
        assert!(mount.contains(want), "no {want} in {mount}");
    }
    assert!(!mount.contains("noexec"), "{mount}");
    assert_eq!(shm, "2048");
}

#[test]
fn a_read_only_root_still_has_writable_mounts() {
    let Some(berth) = berth() else { return };
    let script = "touch /x 2>&1; touch /t/x && touch /v/x && touch /dev/shm/x && echo fine";
    assert_eq!(
        inside(&berth, &["--read-only", "--tmpfs", "/t", "-v", "/v"], script),
        "touch: /x: Read-only file system\nfine"
    );
}

#[test]
fn a_mount_below_another_is_seen() {
    let Some(berth) = berth() else { return };
    let flags = ["-v", "inner:/a/b", "-v", "outer:/a"];
    let _ = inside(&berth, &flags, "echo inner > /a/b/file; echo outer > /a/file");
    assert_eq!(inside(&berth, &["-v", "inner:/x"], "cat /x/file"), "inner");
    assert_eq!(inside(&berth, &["-v", "outer:/x"], "cat /x/file"), "outer");
}

/// docker's: what names resolve with is there with a volume on `/etc` too.
#[test]
fn the_containers_own_files_are_above_a_volume_on_etc() {
    let Some(berth) = berth() else { return };
    let script = "cat /etc/hostname; grep -c nameserver /etc/resolv.conf; grep -c $(hostname) /etc/hosts";
    let flags = ["--hostname", "boxed", "-v", "etc:/etc"];
    assert_eq!(inside(&berth, &flags, script), "boxed\n1\n1");
    let empty = berth.scratch().join("empty");
    std::fs::create_dir(&empty).expect("make a directory");
    // Nowhere to mount them: it starts without.
    let read_only = format!("{}:/etc:ro", empty.display());
    assert_eq!(inside(&berth, &["-v", &read_only], "ls -A /etc"), "");
}

#[test]
fn two_mounts_at_one_place_are_refused() {
    let Some(berth) = berth() else { return };
    for flags in [
        ["-v", "a:/x", "-v", "b:/x/"],
        ["--tmpfs", "/x", "--mount", "type=volume,dst=/x"],
    ] {
        let refused = berth.run(["create"].iter().chain(&flags).chain(&["busybox", "true"]));
        assert_eq!(refused.code, 125, "{flags:?}");
        assert!(
            refused.stderr.contains("mount at /x"),
            "{flags:?}: {}",
            refused.stderr
        );
    }
    assert_eq!(berth.run(["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn a_bind_s_source_may_be_relative_to_where_the_user_is() {
    let Some(berth) = berth() else { return };
    let data = berth.scratch().join("data");
    std::fs::create_dir(&data).expect("make a directory");
    std::fs::write(data.join("file"), "here").expect("write");
    for (from, source) in [(berth.scratch(), "./data"), (&data, "."), (&data, "../data")] {
        let volume = format!("{source}:/d");
        let mut command = berth.command(["run", "--rm", "-v", &volume, "busybox", "cat", "/d/file"]);
        command.current_dir(from);
        let ran = Output::from(command.output().expect("start berth"));
        assert_eq!(ran.ok(), "here", "{source}");
    }
}

#[test]
fn inspect_lists_them() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run([
            "create",
            "--name",
            "mounted",
            "-v",
            "named:/v:ro",
            "-v",
            "/tmp:/host",
            "busybox",
            "true",
        ])
        .ok();
    let mounts = field(&berth, "mounted", "/Mounts");
    let of = |target: &str| {
        mounts
            .as_array()
            .expect("a list")
            .iter()
            .find(|m| m["Destination"] == target)
            .unwrap_or_else(|| panic!("no {target} in {mounts}"))
            .clone()
    };
    assert_eq!(
        (&of("/v")["Type"], &of("/v")["Name"], &of("/v")["RW"]),
        (&"volume".into(), &"named".into(), &false.into())
    );
    assert_eq!(
        (&of("/host")["Type"], &of("/host")["Source"], &of("/host")["RW"]),
        (&"bind".into(), &"/tmp".into(), &true.into())
    );
    remove_all(&berth);
}
