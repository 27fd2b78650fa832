//! From boot to power-off: what a container finds, how it ends, and what is left.

use berth_guest::layout;
use berth_guest::protocol::{Exit, Reply, Request, Scratch, Setup, Stream};
use serde_json::json;

use crate::fixture::{INIT, Microvm, OUTPUT, PIPES, config, first, idle, setup};

#[test]
#[ignore = "runs in the test VM"]
fn a_container_runs_on_the_image_and_its_end_is_told() {
    let mut microvm = Microvm::boot();
    assert_eq!(
        microvm.refused(&Request::Start),
        "container: there is none; create comes first"
    );
    let wanted = Setup {
        hostname: Some("machine".into()),
        files: [("hosts".to_owned(), "127.0.0.1 localhost\n".to_owned())].into(),
        sysctls: [("net.ipv4.ip_default_ttl".to_owned(), "77".to_owned())].into(),
        ..setup()
    };
    microvm.order(&Request::Setup(Box::new(wanted)));
    assert_eq!(
        microvm.refused(&Request::Setup(Box::new(setup()))),
        "setup: it has been done"
    );

    let script = "cat /both; cat /hidden 2>&1; cat /only-base; cat /etc/hosts; hostname
        cat /proc/sys/net/ipv4/ip_default_ttl; ip addr show lo | grep -c 'inet 127.0.0.1'
        stat -c '%a %u:%g' /; touch /written && echo wrote; ls /old-root 2>&1
        grep SigBlk /proc/self/status; ulimit -Hn; echo error >&2; exit 7";
    let mut wanted = config(&["sh", "-c", script]);
    wanted["mounts"].as_array_mut().expect("mounts").push(json!(
        {"destination": "/etc/hosts", "type": "bind", "source": layout::file("hosts"), "options": ["bind", "ro"]}
    ));
    microvm.create(&wanted, PIPES);
    let state = || match microvm.host().call(&Request::State) {
        Ok(Reply::State(state)) => state,
        other => panic!("{other:?}"),
    };
    assert!(state().set_up);
    assert_eq!(state().container.expect("one").status, "created");
    microvm.order(&Request::Start);
    let said = microvm.all(INIT, Stream::Stdout);
    let lines: Vec<&str> = said.lines().collect();
    let want = [
        "top",
        "cat: can't open '/hidden': No such file or directory",
        "base",
        "127.0.0.1 localhost",
        "box",
        "77",
        "1",
        "757 12:34",
        "wrote",
        "ls: /old-root: No such file or directory",
        "SigBlk:\t0000000000000000",
        "524288",
    ];
    assert_eq!(lines, want, "{}", microvm.console());
    assert_eq!(microvm.all(INIT, Stream::Stderr), "error\n");
    for _ in 0..2 {
        let ended = microvm.wait(INIT);
        assert_eq!((ended.exit, ended.oom_killed), (Exit::Code(7), false));
    }
    assert_eq!(state().container.expect("one").status, "stopped");

    // One after the other on the same root.
    let before = microvm.refused(&crate::fixture::create(&idle(), OUTPUT));
    assert_eq!(before, "create: container box is there; delete comes first");
    microvm.order(&Request::Delete);
    assert_eq!(state().container, None);
    microvm.run(&config(&["sh", "-c", "ls /written; kill -9 $$"]), OUTPUT);
    assert_eq!(microvm.all(INIT, Stream::Stdout), "/written\n");
    // PID 1 of a namespace cannot kill itself; its end is the script's.
    assert_eq!(microvm.wait(INIT).exit, Exit::Code(0));
    microvm.order(&Request::Delete);

    microvm.shut_down();
    let console = microvm.console();
    assert!(!console.contains("berth-guest:"), "{console}");
}

#[test]
#[ignore = "runs in the test VM"]
fn what_was_written_to_a_drive_is_there_after_power_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let drive = dir.path().join("scratch");
    std::fs::copy("/t/scratch.ext4", &drive).expect("copy the drive");
    let wanted = Setup {
        scratch: Scratch::Drive("scratch".into()),
        ..setup()
    };
    let end: [fn(&mut Microvm); 2] = [Microvm::shut_down, Microvm::press_keys];
    for ((script, said), end) in [
        ("echo kept >/kept; stat -c %a:%u /; exec sleep 1000", "757:12\n"),
        ("cat /kept; cat /both; exec sleep 1000", "kept\ntop\n"),
    ]
    .into_iter()
    .zip(end)
    {
        let mut microvm = Microvm::boot_with(|config| config["drives"][0]["path_on_host"] = json!(drive));
        microvm.order(&Request::Setup(Box::new(wanted.clone())));
        microvm.run(&config(&["sh", "-c", script]), OUTPUT);
        let mut stream = microvm.attach(INIT, Stream::Stdout);
        assert_eq!(first(&mut stream, said.len()), said);
        // It runs, and nothing has been synced.
        end(&mut microvm);
        let mut fsck = std::process::Command::new("/usr/sbin/e2fsck");
        let fsck = fsck.arg("-fn").arg(&drive).output().expect("e2fsck");
        let said = String::from_utf8_lossy(&fsck.stdout);
        assert!(fsck.status.success(), "{said}");
        assert!(!said.contains("recovering journal"), "{said}");
    }
}

#[test]
#[ignore = "runs in the test VM"]
fn a_setup_that_cannot_be_says_what_of_it() {
    let cases = [
        (
            Setup {
                layers: vec!["base".into(), "nowhere".into()],
                ..setup()
            },
            "drive \"nowhere\": no virtio disk has this serial number",
        ),
        (
            Setup {
                layers: vec!["scratch".into()],
                ..setup()
            },
            "cannot mount layer scratch: Invalid argument (os error 22)",
        ),
    ];
    for (wanted, why) in cases {
        let microvm = Microvm::boot();
        assert_eq!(microvm.refused(&Request::Setup(Box::new(wanted))), why);
        assert_eq!(
            microvm.refused(&Request::Setup(Box::new(setup()))),
            "setup: it has failed before and is not undone"
        );
        assert_eq!(
            microvm.refused(&crate::fixture::create(&idle(), OUTPUT)),
            "create: setup comes first"
        );
    }
}
