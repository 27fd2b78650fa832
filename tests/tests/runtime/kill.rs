//! `kill`.

use berth_tests::{Bundle, Need, require};

fn wait_stopped(bundle: &Bundle) {
    for _ in 0..500 {
        if bundle.state_field("status") == "stopped" {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{} does not stop", bundle.id);
}

#[test]
fn a_signal_reaches_init_and_a_stopped_container_takes_none() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "trap 'exit 3' USR1; while :; do sleep 0.05; done"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let _ = bundle.output(&["kill", &bundle.id, "USR1"]).ok();
    wait_stopped(&bundle);
    let late = bundle.output(&["kill", &bundle.id, "KILL"]);
    assert!(
        late.code == 1 && late.stderr.contains("not running"),
        "{}",
        late.stderr
    );
    let _ = bundle.verb(&["delete"]).ok();
    bundle.assert_clean();
}

#[test]
fn a_paused_container_can_be_killed() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let _ = bundle.verb(&["pause"]).ok();
    let _ = bundle.output(&["kill", &bundle.id, "KILL"]).ok();
    wait_stopped(&bundle);
}

#[test]
fn unknown_signals_are_refused() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    for signal in ["NOPE", "0", "65"] {
        assert_eq!(bundle.output(&["kill", &bundle.id, signal]).code, 1, "{signal}");
    }
}
