//! What a guest does by itself when it was restored from a snapshot.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_guest::protocol::Request;

use crate::fixture::{Microvm, OUTPUT, idle};

/// How much later than the guest's the host's clock is.
const LATE: Duration = Duration::from_secs(3600);
/// Between a question and its answer on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(600);

#[test]
#[ignore = "runs in the test VM"]
fn copies_of_a_guest_know_the_time_and_draw_numbers_of_their_own() {
    let files = tempfile::tempdir().expect("a directory");
    let original = Microvm::set_up();
    original.run(&idle(), OUTPUT);
    let before = now() - LATE;
    original.order(&Request::SyncClock {
        realtime_ns: u64::try_from(before.as_nanos()).expect("this century"),
    });
    // A kernel draws new keys whenever its age has grown by half, and those are never the same: what is asked for below has to come
    // before.
    original.output(&[
        "sh",
        "-c",
        "until [ $(cut -d. -f1 /proc/uptime) -ge 30 ]; do sleep 1; done",
    ]);
    let jump = (before + LATE / 2).as_secs();
    let watch = format!("until [ $(date +%s) -gt {jump} ]; do sleep 0.1; done; date +%s >/seen");
    original.exec(&["sh", "-c", &watch], OUTPUT);
    original.snapshot(files.path());

    let mut drawn = BTreeSet::new();
    for _ in 0..2 {
        let copy = Microvm::restored(files.path());
        let numbers = copy.output(&["sh", "-c", "head -c 16 /dev/urandom | hexdump -e '16/1 \"%02x\"'"]);
        assert_eq!(numbers.trim().len(), 32, "{numbers:?}");
        assert!(drawn.insert(numbers), "{drawn:?}");
        let told = Duration::from_secs(seconds(&copy, "date +%s"));
        assert!(told.abs_diff(now()) < ANSWER_MAX, "{told:?}");
        let console = copy.console();
        assert!(!console.contains("berth-guest:"), "{console}");
    }
    assert!(
        [2, 4, 8, 16, 32]
            .iter()
            .any(|patience| unasked(files.path(), *patience)),
        "a copy that nobody connects to does not set its clock"
    );
}

/// Whether the time was right before anybody asked, which is after so many seconds.
fn unasked(files: &Path, patience: u64) -> bool {
    let copy = Microvm::restored(files);
    std::thread::sleep(Duration::from_secs(patience));
    let asked = now().as_secs();
    seconds(&copy, "until [ -s /seen ]; do sleep 0.1; done; cat /seen") < asked
}

fn seconds(copy: &Microvm, script: &str) -> u64 {
    let said = copy.output(&["sh", "-c", script]);
    said.trim().parse().expect("a number")
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}
