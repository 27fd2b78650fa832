//! Volumes and directories of the host in microVMs, in the test VM: `-v`, `--mount` and what an image keeps in volumes.

use berth_tests::{BerthVm, TEST_VM, require};

const RUN: &str = "berth run --isolation vm --network none";

/// Two lines of text are the same.
fn same(text: &str) -> bool {
    let mut lines = text.lines();
    lines.next() == lines.next()
}

#[test]
fn volumes_and_directories_of_the_host() {
    if !require(TEST_VM) {
        return;
    }
    let mut host = BerthVm::boot();
    host.add_kernel();
    let mut run = |command: &str| host.run(command);
    let _ = run(
        "mkdir -p /srv/rw/d /srv/ro /srv/one; echo from-host >/srv/rw/f; echo kept >/srv/ro/f; \
         echo alone >/srv/one/file; echo beside >/srv/one/other; echo secret >/secret; \
         ln -s /secret /srv/rw/absolute; ln -s ../../secret /srv/rw/relative",
    )
    .ok();

    // One guest with all kinds. It may do what its kernel lets root do.
    let volumes = "-v /srv/rw:/rw -v /srv/ro:/ro:ro -v /srv/one/file:/one --mount type=volume,src=data,dst=/etc \
         -v /anonymous --tmpfs /memory --cap-add SYS_ADMIN --security-opt seccomp=unconfined";
    let _ = run(&format!("{RUN} -d --name box {volumes} busybox sleep 1000")).ok();
    let mut inside = |script: &str| host.run(&format!("berth exec box sh -c '{script}' 2>&1"));
    assert_eq!(inside("cat /rw/f /ro/f /one").ok(), "from-host\nkept\nalone");
    // Its kernel's word for read-only is not the host's.
    let refused = inside(
        "mount -o remount,rw /ro && grep -c \" /ro virtiofs rw\" /proc/mounts; touch /ro/new || rm /ro/f || echo refused",
    );
    let said = refused.ok();
    assert!(said.starts_with("1\n") && said.ends_with("refused"), "{said}");
    let out = inside("cat /rw/absolute /rw/relative /rw/../secret /one/../other; cat /secret");
    assert!(
        !out.stdout.contains("secret\n") && !out.stdout.contains("beside"),
        "{}",
        out.stdout
    );
    assert_eq!(
        inside("ls /run/berth 2>/dev/null; ls -a /anonymous").ok(),
        ".\n.."
    );
    // What the image has goes into a volume that is new.
    assert_eq!(
        inside("grep -c root /etc/passwd; echo in-volume >/etc/kept").ok(),
        "1"
    );

    // Both sides see what the other does, at once.
    let _ = inside(
        "echo from-guest >/rw/g; mkdir /rw/made; ln /rw/g /rw/made/again; chmod 640 /rw/g; echo more >>/one",
    )
    .ok();
    assert_eq!(
        host.run("cat /srv/rw/made/again /srv/one/file; stat -c %a.%u /srv/rw/g")
            .ok(),
        "from-guest\nalone\nmore\n640.0"
    );
    for word in ["first", "second"] {
        let _ = host.run(&format!("echo {word} >/srv/rw/f; rm -f /srv/rw/g")).ok();
        let seen = host
            .run("berth exec box sh -c 'cat /rw/f; test -e /rw/g || echo gone'")
            .ok();
        assert_eq!(seen, format!("{word}\ngone"));
    }
    // A few megabytes stay what they are, written by either.
    let sums = host.run(
        "dd if=/dev/urandom of=/srv/rw/big bs=1M count=6 2>/dev/null
         sha256sum </srv/rw/big; berth exec box sh -c 'sha256sum </rw/big; cp /rw/big /rw/copy; sync'",
    );
    assert!(same(&sums.ok()));
    assert_eq!(host.run("cmp /srv/rw/big /srv/rw/copy && echo same").ok(), "same");
    let _ = host.run("berth rm -f box").ok();
    assert_eq!(
        host.run("cat /srv/ro/f /secret; ls /srv/ro").ok(),
        "kept\nsecret\nf"
    );

    // A named volume outlives its container, and goes into the next, of either kind.
    for isolation in ["vm", "container"] {
        let kept = format!(
            "berth run --isolation {isolation} --network none --rm -v data:/etc busybox cat /etc/kept"
        );
        assert_eq!(host.run(&kept).ok(), "in-volume", "{isolation}");
    }
    assert_eq!(
        host.run("berth volume rm data && berth volume ls -q")
            .ok()
            .lines()
            .count(),
        2
    );

    // An init is one more file.
    let init = "sleep 0.1 & cat /proc/1/comm; kill -TERM 1; sleep 5";
    let ended = host.run(&format!("{RUN} --rm --init busybox sh -c '{init}'"));
    assert_eq!((ended.code, ended.stdout.trim()), (143, "docker-init"));

    for (flags, words) in [
        ("-v /dev/null:/x", "neither a directory nor a file"),
        ("-v /srv/rw:/x:rslave", "not supported"),
        ("--mount type=bind,src=/nowhere,dst=/x", "does not exist"),
    ] {
        let refused = host.run(&format!("{RUN} --rm {flags} busybox true 2>&1"));
        assert_eq!(refused.code, 125, "{flags}: {}", refused.stdout);
        assert!(refused.stdout.contains(words), "{flags}: {}", refused.stdout);
    }
}
