//! Time namespaces with offsets.

use berth_tests::{Bundle, Need, require};
use serde_json::json;

#[test]
fn clocks_are_offset_inside() {
    if !require(&[Need::Root]) {
        return;
    }
    const DAYS_100_S: u64 = 8_640_000;
    let mut bundle = Bundle::new(&["cut", "-d.", "-f1", "/proc/uptime"]);
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": DAYS_100_S, "nanosecs": 0}});
    let uptime = |text: &str| -> u64 {
        text.split('.')
            .next()
            .expect("a number")
            .parse()
            .expect("seconds")
    };
    let host = uptime(&std::fs::read_to_string("/proc/uptime").expect("read the host's uptime"));
    let inside = uptime(&bundle.verb(&["run"]).ok());
    assert!(inside >= host + DAYS_100_S, "{inside} inside, {host} outside");
    bundle.assert_clean();
}

#[test]
fn offsets_without_the_namespace_are_refused() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1, "nanosecs": 0}});
    let ran = bundle.verb(&["run"]);
    assert!(
        ran.code != 0 && ran.stderr.contains("timeOffsets"),
        "{}",
        ran.stderr
    );
    bundle.assert_clean();
}
