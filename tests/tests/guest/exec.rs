//! More processes in a running container: who they are, how they end, and those nobody waits for.

use berth_guest::client::Error;
use berth_guest::protocol::{Exit, Failure, Reply, Request, Stream, Streams};
use berth_tests::eventually;
use serde_json::json;

use crate::fixture::{INIT, Microvm, OUTPUT, config, exec, idle, process, text};

const NOTHING: Streams = Streams::Pipes {
    stdin: false,
    stdout: false,
    stderr: false,
};

#[test]
#[ignore = "runs in the test VM"]
fn processes_are_run_signalled_and_told() {
    let microvm = Microvm::set_up();
    microvm.create(&idle(), NOTHING);
    assert!(
        microvm
            .host()
            .call(&exec(&process(&["true"], false), NOTHING))
            .is_ok(),
        "created is enough"
    );
    microvm.order(&Request::Start);

    let mut wanted = process(&["sh", "-c", "id -u; id -g; id -G; pwd; echo $WORD"], false);
    wanted["user"] = json!({"uid": 1000, "gid": 100, "additionalGids": [7]});
    wanted["cwd"] = json!("/tmp");
    wanted["env"] = json!(["PATH=/bin", "WORD=said"]);
    let Ok(Reply::Execed { process: number, .. }) = microvm.host().call(&exec(&wanted, OUTPUT)) else {
        panic!("{}", microvm.console());
    };
    assert_eq!(
        microvm.all(number, Stream::Stdout),
        "1000\n100\n100 7\n/tmp\nsaid\n"
    );
    assert_eq!(microvm.wait(number).exit, Exit::Code(0));
    // Told once, then forgotten.
    assert_eq!(
        microvm.refused(&Request::Wait { process: number }),
        format!("process {}: there is none of this number", number.0)
    );

    for (program, errno) in [("/no/such", libc::ENOENT), ("/etc/hosts", libc::EACCES)] {
        match microvm.host().call(&exec(&process(&[program], false), OUTPUT)) {
            Err(Error::Refused(Failure::Exec {
                program: said,
                errno: got,
            })) => {
                assert_eq!((said.as_str(), got), (program, errno));
            }
            other => panic!("{program}: {other:?}"),
        }
    }

    // Two who wait learn the same.
    let sleeper = microvm.exec(
        &[
            "sh",
            "-c",
            "trap 'echo caught; exit 9' USR1; echo set; while :; do sleep 0.1; done",
        ],
        OUTPUT,
    );
    let mut stream = microvm.attach(sleeper, Stream::Stdout);
    assert_eq!(crate::fixture::first(&mut stream, 4), "set\n");
    std::thread::scope(|scope| {
        let waits = [(); 2].map(|()| {
            let mut host = microvm.host();
            scope.spawn(move || host.wait(sleeper))
        });
        // Neither is known to wait yet, which is why the end must not be forgotten before it is told.
        microvm.order(&Request::Kill {
            process: sleeper,
            signal: 10,
        });
        let told = waits.map(|wait| wait.join().expect("a thread").map(|ended| ended.exit));
        assert!(
            told.iter().any(|exit| matches!(exit, Ok(Exit::Code(9)))),
            "{told:?}"
        );
    });
    assert_eq!(text(stream), "caught\n");
    let killed = microvm.exec(&["sleep", "1000"], NOTHING);
    microvm.order(&Request::Kill {
        process: killed,
        signal: 9,
    });
    assert_eq!(microvm.wait(killed).exit, Exit::Signal(9));

    orphans_are_collected(&microvm);

    microvm.order(&Request::KillAll { signal: 15 });
    assert_eq!(microvm.wait(INIT).exit, Exit::Code(0), "the trap of its shell");
    let why = microvm.refused(&exec(&process(&["true"], false), NOTHING));
    assert_eq!(why, "cannot exec in a stopped container");
    microvm.order(&Request::Delete);
    shared_pids(&microvm);
}

/// In the container's namespace its init is the parent of orphans; processes of exec themselves are ours.
fn orphans_are_collected(microvm: &Microvm) {
    for _ in 0..5 {
        let process = microvm.exec(&["sh", "-c", "(sleep 0.2 &) ; (true &)"], NOTHING);
        assert_eq!(microvm.wait(process).exit, Exit::Code(0));
    }
    // Nobody ever waits for these.
    for _ in 0..5 {
        microvm.exec(&["true"], NOTHING);
    }
    eventually("no zombie is left", || {
        microvm
            .output(&["sh", "-c", "ps -o stat | grep -c Z || true"])
            .trim()
            == "0"
    });
}

/// Without a pid namespace orphans come to the guest's PID 1.
fn shared_pids(microvm: &Microvm) {
    let mut wanted = config(&[
        "sh",
        "-c",
        "for n in 1 2 3 4 5; do (sleep 0.2 &) ; done; exec sleep 1000",
    ]);
    wanted["linux"]["namespaces"]
        .as_array_mut()
        .expect("namespaces")
        .retain(|one| one["type"] != "pid");
    microvm.run(&wanted, NOTHING);
    let count = |what: &str| {
        let script = format!("ps -o ppid,stat,comm | awk '{what}' | wc -l");
        microvm
            .output(&["sh", "-c", &script])
            .trim()
            .parse::<u32>()
            .expect("a number")
    };
    eventually("the short sleeps have ended and are collected", || {
        count("$1 == 1 && $3 == \"sleep\"") == 1 && count("$2 ~ /Z/") == 0
    });
    // What a session leaves when it kills itself is none of the container's end.
    let process = microvm.exec(&["sh", "-c", "kill -9 0"], NOTHING);
    assert_eq!(microvm.wait(process).exit, Exit::Signal(9));
    microvm.order(&Request::KillAll { signal: 9 });
    assert_eq!(microvm.wait(INIT).exit, Exit::Signal(9));
    microvm.order(&Request::Delete);
}
