//! Hosts that make mistakes, and containers that mean it.

use std::io::{Read, Write};

use berth_guest::frame::FRAME_MAX;
use berth_guest::listen::Listener;
use berth_guest::protocol::{Exit, PORT, Reply, Request, Stream};
use berth_sys::vsock;
use serde_json::json;

use crate::fixture::{INIT, Microvm, OUTPUT, config, idle};

#[test]
#[ignore = "runs in the test VM"]
fn frames_that_are_none_end_their_connection_and_nothing_else() {
    let microvm = Microvm::set_up();
    microvm.run(&idle(), OUTPUT);
    let length = |n: usize| u32::try_from(n).expect("a length").to_le_bytes().to_vec();
    let with = |body: &[u8]| [length(body.len()), body.to_vec()].concat();
    let cases: [(&str, Vec<u8>, &str); 6] = [
        (
            "a length beyond the bound",
            length(FRAME_MAX + 1),
            "at most 4194304 are taken",
        ),
        (
            "the longest length there is",
            vec![0xff; 4],
            "at most 4194304 are taken",
        ),
        ("no JSON", with(b"\x00\xff\xfe"), "no message of this protocol"),
        ("nothing", with(b""), "no message of this protocol"),
        (
            "an unknown request",
            with(br#"{"Reboot":{}}"#),
            "no message of this protocol",
        ),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "at most 4194304 are taken",
        ),
    ];
    for (what, bytes, words) in cases {
        let mut socket = microvm.connect();
        socket.write_all(&bytes).expect("it is sent");
        let mut said = Vec::new();
        // Cut off with bytes unread, it may end in a reset.
        let _ = socket.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(words), "{what}: {said:?}");
    }
    // Half frames, whose senders leave; and many who say nothing.
    for half in [&b"\x10"[..], b"\x10\0\0\0", b"\x10\0\0\0\"half"] {
        microvm.connect().write_all(half).expect("it is sent");
    }
    let silent: Vec<_> = (0..100).map(|_| microvm.connect()).collect();
    assert_eq!(microvm.output(&["echo", "served"]), "served\n");
    drop(silent);
    // A question behind one that is not answered yet waits its turn.
    let sleeper = microvm.exec(&["sleep", "1000"], OUTPUT);
    let mut both = microvm.connect();
    let wait = berth_guest::frame::encode(&Request::Wait { process: sleeper }).expect("a frame");
    let state = berth_guest::frame::encode(&Request::State).expect("a frame");
    both.write_all(&[wait, state].concat()).expect("it is sent");
    microvm.order(&Request::Kill {
        process: sleeper,
        signal: 9,
    });
    let mut next = || {
        berth_guest::frame::receive::<Reply>(&mut both)
            .expect("a frame")
            .expect("an answer")
    };
    assert!(matches!(next(), Reply::Ended(ended) if ended.exit == Exit::Signal(9)));
    assert!(matches!(next(), Reply::State(_)));
    assert!(!microvm.console().contains("panicked"), "{}", microvm.console());
}

/// A container with a privileged hand reaches a guest's port through the loopback transport, as this test does: in the test VM,
/// whose vsock it is.
#[test]
#[ignore = "runs in the test VM"]
fn only_the_host_is_let_in() {
    let listener = Listener::vsock().expect("a port");
    let mut socket = vsock::connect(vsock::CID_LOCAL, PORT)
        .map(std::fs::File::from)
        .expect("the loopback transport");
    assert!(listener.accept().expect("a connection").is_none());
    let mut said = Vec::new();
    let closed = socket.read_to_end(&mut said);
    assert!(closed.is_err() || said.is_empty(), "{said:?}");
}

#[test]
#[ignore = "runs in the test VM"]
fn a_container_that_means_harm_is_ended_like_any_other() {
    let microvm = Microvm::set_up();
    // Forks without end, and takes no signal but the one.
    let mut wanted = config(&[
        "sh",
        "-c",
        "trap '' TERM INT; b() { b | b & wait; }; while :; do b 2>/dev/null; done",
    ]);
    wanted["linux"]["resources"] = json!({"pids": {"limit": 60}});
    microvm.run(&wanted, OUTPUT);
    berth_tests::eventually("the bound on processes is reached", || {
        match microvm.host().call(&Request::Stats) {
            Ok(Reply::Stats(stats)) => stats.pids.current >= 55,
            other => panic!("{other:?}"),
        }
    });
    microvm.order(&Request::KillAll { signal: 9 });
    assert_eq!(microvm.wait(INIT).exit, Exit::Signal(9));
    microvm.order(&Request::Delete);

    // Takes all the memory it may have.
    let mut wanted = config(&["sh", "-c", "echo begun; exec tail /dev/zero"]);
    wanted["linux"]["resources"] = json!({"memory": {"limit": 24 << 20, "swap": 24 << 20}});
    microvm.run(&wanted, OUTPUT);
    assert_eq!(microvm.all(INIT, Stream::Stdout), "begun\n");
    let ended = microvm.wait(INIT);
    assert_eq!((ended.exit, ended.oom_killed), (Exit::Signal(9), true));
    microvm.order(&Request::Delete);

    // Takes all the guest has: the kernel ends the container's process, not PID 1.
    microvm.run(&config(&["tail", "/dev/zero"]), OUTPUT);
    assert_eq!(microvm.wait(INIT).exit, Exit::Signal(9));
    microvm.order(&Request::Delete);

    // Looks for the guest's own program and for the host's door.
    let script = "echo x 2>&1 >/proc/1/exe; cat /proc/1/comm; ls /run/berth 2>&1";
    microvm.run(&config(&["sh", "-c", script]), OUTPUT);
    let said = microvm.all(INIT, Stream::Stdout);
    assert!(
        said.ends_with("sh\nls: /run/berth: No such file or directory\n"),
        "{said}"
    );
    assert_eq!(microvm.wait(INIT).exit, Exit::Code(1));
}
