//! `pause` and `resume`.

use berth_tests::{Bundle, Need, require};

#[test]
fn a_paused_container_stands_still_until_resumed() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let _ = bundle.verb(&["pause"]).ok();
    assert_eq!(bundle.state_field("status"), "paused");
    assert_eq!(bundle.verb(&["pause"]).code, 1);
    let refused = bundle.output(&["exec", &bundle.id, "true"]);
    assert!(
        refused.code == 255 && refused.stderr.contains("cannot exec in a paused container"),
        "{}",
        refused.stderr
    );
    let _ = bundle.verb(&["resume"]).ok();
    assert_eq!(bundle.state_field("status"), "running");
    assert_eq!(bundle.exec(&["echo", "back"]), "back");
}
