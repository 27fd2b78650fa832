//! `cp` and `export` of a microVM, in the test VM.

use berth_tests::{BerthVm, TEST_VM, require};

/// `cp` says what it would not do, and why.
fn refused(host: &mut BerthVm, command: &str, words: &str) {
    let refused = host.run(&format!("{command} 2>&1"));
    assert_ne!(refused.code, 0, "{command}");
    assert!(refused.stdout.contains(words), "{command}: {}", refused.stdout);
}

#[test]
fn files_go_into_a_microvm_and_out_of_it() {
    if !require(TEST_VM) {
        return;
    }
    let mut host = BerthVm::boot();
    host.add_kernel();
    let _ = host
        .run(
            "mkdir -p /h/d/e /srv && cd /h && echo one >f && echo two >d/g && ln d/g d/e/again && ln -s g d/link
             chmod 750 d/e && chown 5:6 d/g && echo shared >/srv/s && dd if=/dev/urandom of=big bs=1M count=6 2>/dev/null
             berth run --isolation vm --network none -d --name box -v /srv:/data busybox sleep 1000",
        )
        .ok();
    let inside =
        |host: &mut BerthVm, script: &str| host.run(&format!("berth exec box sh -c '{script}'")).ok();

    // In, with docker's meaning of what is named.
    let _ = host
        .run(
            "berth cp /h/f box:/tmp && berth cp /h/f box:/tmp/renamed && berth cp /h/d box:/tmp && \
             berth cp -a /h/d box:/tmp/kept && berth cp /h/d/. box:/etc && berth cp -q /h/big box:/tmp/big",
        )
        .ok();
    assert_eq!(
        inside(
            &mut host,
            "cat /tmp/f /tmp/renamed /tmp/d/link /etc/g; stat -c %a.%u.%h /tmp/d/e /tmp/d/g /tmp/kept/g"
        ),
        "one\none\ntwo\ntwo\n750.0.2\n644.0.2\n644.5.2"
    );
    refused(
        &mut host,
        "berth cp /h/d box:/etc/passwd",
        "cannot copy a directory to a file",
    );
    refused(
        &mut host,
        "berth cp /h/f box:/absent/",
        "destination directory does not exist",
    );
    refused(&mut host, "berth cp /h/f box:/absent/f", "/absent");
    refused(&mut host, "berth cp /h/nothing box:/tmp", "/h/nothing");

    // Out, and what is mounted there too.
    let _ = host
        .run(
            "mkdir /o && berth cp box:/tmp/kept /o && berth cp box:/tmp/kept/. /o/flat && berth cp box:/tmp/f /o/named && \
             berth cp box:/data/s /o && berth cp box:/tmp/big /o && berth cp -L box:/tmp/d/link /o/followed && \
             berth cp box:/tmp/d/link /o/link",
        )
        .ok();
    assert_eq!(
        host.run("cd /o; cat kept/e/again flat/g named s followed; readlink link; cmp big /h/big && stat -c %a.%h kept/e kept/g").ok(),
        "two\ntwo\none\nshared\ntwo\ng\n750.2\n644.2"
    );
    refused(&mut host, "berth cp box:/tmp/absent /o", "/tmp/absent");

    // As archives.
    assert_eq!(
        host.run("berth cp box:/tmp/d - | tar t | sort").ok(),
        "d\nd/e\nd/e/again\nd/g\nd/link"
    );
    let _ = host.run("cd /h && tar c d | berth cp - box:/var").ok();
    assert_eq!(inside(&mut host, "cat /var/d/g"), "two");
    let exported = host
        .run("berth export box | tar t | grep -cxE '(./)?(etc/g|data/s|proc/self)'")
        .ok();
    assert_eq!(exported, "1", "what is mounted is not the container's own");

    // Links lead to places of the container, on either way.
    let _ = inside(
        &mut host,
        "ln -s / /tmp/root; ln -s ../../../../../../.. /tmp/up; ln -s /run/berth /tmp/guest",
    );
    for path in [
        "/tmp/root/run/berth",
        "/tmp/up/run/berth",
        "/tmp/guest/bundle",
        "/../../run/berth",
    ] {
        refused(&mut host, &format!("berth cp box:{path} /o/out"), "No such file");
    }
    let _ = host
        .run("berth cp /h/f box:/tmp/root/etc/placed && berth cp /h/f box:/tmp/up/placed")
        .ok();
    assert_eq!(inside(&mut host, "cat /etc/placed /placed"), "one\none");
    assert_eq!(
        host.run("test -e /placed -o -e /etc/placed || echo nowhere-else")
            .ok(),
        "nowhere-else"
    );
    let _ = host.run("cd /h && mkdir -p a && ln -s / a/way && tar c a | head -c 1024 >/a.tar && rm a/way && mkdir a/way && echo x >a/way/x && tar c a/way/x >>/a.tar").ok();
    refused(&mut host, "berth cp - box:/tmp </a.tar", "a/way/x");
    refused(
        &mut host,
        "head -c 100000 /h/big | berth cp - box:/tmp",
        "archive",
    );

    // What runs there, by the guest's word.
    let top = host.run("berth top box -o pid,ppid,user,args").ok();
    assert!(
        top.starts_with("PID") && top.ends_with("sleep 1000") && top.contains(" root "),
        "{top}"
    );

    // Who goes away in the middle takes the guest's process along: there is room for 128 at a time.
    for _ in 0..2 {
        let cut = "for i in $(seq 70); do berth cp box:/tmp/big - | head -c 1 >/dev/null; done; true";
        let _ = host.run(cut).ok();
    }
    assert_eq!(host.run("berth cp box:/tmp/f - | tar xO").ok(), "one");

    while_it_does_not_run(&mut host);
    // No half of a copy is left of the whole.
    assert_eq!(
        host.run("ls -d /var/lib/berth/containers/*/copy-* 2>/dev/null; berth rm box")
            .ok(),
        "box"
    );
}

/// A machine is booted for it that does not run its program, and goes again. What is copied in is on the disk afterwards.
fn while_it_does_not_run(host: &mut BerthVm) {
    let _ = host
        .run("berth stop box && echo late >/h/late; while pidof berth-shim >/dev/null; do sleep 0.1; done")
        .ok();
    let before = host.look();
    let both_ways = "berth cp box:/tmp/f /o/late && berth cp /h/late box:/tmp/late && cat /o/late
        cat /srv/s && berth export box | tar xO tmp/late && berth ps -a --format '{{.State}}'";
    assert_eq!(host.run(both_ways).ok(), "one\nshared\nlate\nexited");
    assert_eq!(host.settled(&before), before);
    // Its monitor is killed with who asked, the rest goes with the next command, and the disk is as good as after a power cut.
    let _ = host
        .run(
            "berth cp box:/tmp/big /o/cut & until pidof berth-vmm >/dev/null; do sleep 0.1; done
             kill -9 $!; while pidof berth-vmm >/dev/null; do sleep 0.1; done; berth ps >/dev/null",
        )
        .ok();
    // The run directory goes, too.
    let (rest, run) = before.rsplit_once('\n').expect("lines");
    assert!(run.starts_with("/run/berth/containers/"), "{before}");
    assert_eq!(host.settled(rest), rest, "after the next command");
    let _ = host.run("berth start box").ok();
    assert_eq!(host.run("berth exec box cat /tmp/late").ok(), "late");
    let _ = host.run("berth kill box && berth wait box").ok();
}
