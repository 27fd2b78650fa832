//! What a container may use and has used, how it is frozen, and the guest's clock.

use std::path::PathBuf;

use berth_guest::protocol::{Create, Exit, Reply, Request, Stream};
use berth_runtime::seccomp;
use serde_json::json;
use serde_json::value::to_raw_value;

use crate::fixture::{INIT, Microvm, OUTPUT, config, idle};

#[test]
#[ignore = "runs in the test VM"]
fn limits_hold_are_changed_and_counted() {
    let microvm = Microvm::set_up();
    let mut wanted = idle();
    wanted["linux"]["resources"] =
        json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 40}, "cpu": {"shares": 512}});
    microvm.run(&wanted, OUTPUT);
    let stats = || match microvm.host().call(&Request::Stats) {
        Ok(Reply::Stats(stats)) => stats,
        other => panic!("{other:?}"),
    };
    berth_tests::eventually("its shell and the sleep run", || stats().pids.current >= 2);
    let before = stats();
    assert_eq!(before.memory.limit, Some(64 << 20));
    assert_eq!(before.pids.limit, Some(40));
    assert!(before.pids.current >= 2 && before.memory.usage > 0, "{before:?}");
    let _ = microvm.output(&[
        "sh",
        "-c",
        "dd if=/both of=/copy bs=1M 2>/dev/null; n=0; while [ $n -lt 3000 ]; do n=$((n+1)); done",
    ]);
    assert!(stats().cpu.usage_ns > before.cpu.usage_ns);

    let resources = to_raw_value(&json!({"pids": {"limit": 70}})).expect("JSON");
    microvm.order(&Request::Update { resources });
    assert_eq!(stats().pids.limit, Some(70));
    let resources = to_raw_value(&json!({"pids": {"limit": "many"}})).expect("JSON");
    let why = microvm.refused(&Request::Update { resources });
    assert!(why.starts_with("resources: field"), "{why}");

    // Frozen, it counts no further.
    let counter = microvm.exec(
        &["sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; done"],
        OUTPUT,
    );
    microvm.order(&Request::Pause);
    assert_eq!(
        microvm.refused(&Request::Pause),
        "container not running or created: paused"
    );
    let frozen = stats().cpu.usage_ns;
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(stats().cpu.usage_ns, frozen);
    microvm.order(&Request::Resume);
    microvm.order(&Request::Kill {
        process: counter,
        signal: 9,
    });
    assert_eq!(microvm.wait(counter).exit, Exit::Signal(9));

    // A clock that stood still, and one that is where the host's is.
    microvm.order(&Request::SyncClock {
        realtime_ns: 1_000_000_000_500_000_000,
    });
    let now: u64 = microvm.output(&["date", "+%s"]).trim().parse().expect("a number");
    assert!((1_000_000_000..1_000_003_600).contains(&now), "{now}");
    microvm.order(&Request::Reseed { seed: vec![7; 32] });
    assert_eq!(
        microvm.refused(&Request::Reseed { seed: Vec::new() }),
        "cannot seed the kernel's random numbers: Invalid argument (os error 22)"
    );
}

#[test]
#[ignore = "runs in the test VM"]
fn a_filter_the_host_compiled_is_the_containers() {
    let microvm = Microvm::set_up();
    let mut wanted = config(&["sh", "-c", "grep Seccomp: /proc/self/status; mkdir /tmp/new 2>&1"]);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
    });
    wanted["linux"]["seccomp"] = profile.clone();
    let profile: oci_spec::runtime::LinuxSeccomp = serde_json::from_value(profile).expect("a profile");
    let filter = seccomp::compiled(&profile, None::<PathBuf>.as_deref()).expect("it compiles");
    let create = Create {
        id: "box".into(),
        config: to_raw_value(&wanted).expect("JSON"),
        streams: OUTPUT,
        filters: [filter].into(),
    };
    assert!(matches!(
        microvm.host().call(&Request::Create(create)),
        Ok(Reply::Created { .. })
    ));
    microvm.order(&Request::Start);
    assert_eq!(
        microvm.all(INIT, Stream::Stdout),
        "Seccomp:\t2\nmkdir: can't create directory '/tmp/new': No space left on device\n"
    );
    let process = microvm.wait(INIT);
    assert_eq!(process.exit, Exit::Code(1));
}
