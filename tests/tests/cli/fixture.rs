//! What every test starts from.

use berth_tests::{Berth, Need, require};
use serde_json::Value;

pub use berth_tests::eventually;

/// A `berth` in a network of its own with the image `busybox`, or none on a host that cannot have one.
pub fn berth() -> Option<Berth> {
    let needs = [
        Need::Root,
        Need::Program("busybox"),
        Need::Program("ip"),
        Need::Program("nft"),
        Need::Program("curl"),
    ];
    require(&needs).then(Berth::in_own_network)
}

/// What a shell script prints in a container run with these flags; both must work.
#[track_caller]
pub fn inside(berth: &Berth, flags: &[&str], script: &str) -> String {
    let command = ["run", "--rm"].iter().chain(flags);
    berth.run(command.chain(&["busybox", "sh", "-c", script])).ok()
}

/// A detached container of this name that sleeps, run with these flags; its id.
#[track_caller]
pub fn sleeping(berth: &Berth, name: &str, flags: &[&str]) -> String {
    let command = [
        &["run", "--detach", "--name", name],
        flags,
        &["busybox", "sleep", "600"],
    ];
    berth.run(command.concat()).ok()
}

/// A field of `inspect` by JSON pointer.
#[track_caller]
pub fn field(berth: &Berth, name: &str, pointer: &str) -> Value {
    let all: Value = serde_json::from_str(&berth.run(["inspect", name]).ok()).expect("inspect prints JSON");
    all[0]
        .pointer(pointer)
        .unwrap_or_else(|| panic!("no {pointer} in {all:#}"))
        .clone()
}

/// Removes the containers and asserts that nothing of them is left.
#[track_caller]
pub fn remove_all(berth: &Berth) {
    let listed = berth.run(["ps", "--all", "--quiet", "--no-trunc"]).ok();
    for id in listed.split_whitespace() {
        let _ = berth.run(["rm", "--force", "--volumes", id]).ok();
    }
    assert_eq!(berth.left(), Vec::<String>::new());
}
