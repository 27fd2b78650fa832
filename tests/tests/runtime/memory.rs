//! Memory limits too low for a container to come up.

use berth_tests::{Bundle, Need, require};
use serde_json::json;

#[test]
fn a_limit_below_what_init_needs_is_named_and_leaves_nothing() {
    if !require(&[Need::Root]) {
        return;
    }
    let limit = 4096;
    for verb in ["create", "run"] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        bundle.config["linux"]["resources"] = json!({"memory": {"limit": limit, "swap": limit}});
        let ran = bundle.verb(&[verb]);
        assert_eq!(ran.code, 1, "{verb}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("memory limit too low") && ran.stderr.contains("4096 bytes"),
            "{verb}: {}",
            ran.stderr
        );
        bundle.assert_clean();
    }
}
