//! Hooks: when, where, and what happens when one fails.

use berth_tests::{Bundle, Need, require};
use serde_json::json;

fn shell(script: &str) -> serde_json::Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

#[test]
fn all_six_kinds_run_in_order() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["sh", "-c", "echo program >> /tmp/order"]);
    let order = bundle.rootfs().join("tmp/order");
    for kind in ["prestart", "createRuntime", "createContainer", "poststop"] {
        bundle.config["hooks"][kind] = shell(&format!("echo {kind} >> {}", order.display()));
    }
    // Only this one is looked up in the container.
    bundle.config["hooks"]["startContainer"] = shell("echo startContainer >> /tmp/order");
    bundle.config["hooks"]["poststart"] =
        shell(&format!("cat > {}", bundle.path().join("poststart").display()));
    let _ = bundle.verb(&["run"]).ok();
    let order = std::fs::read_to_string(order).expect("order");
    let words: Vec<_> = order.lines().collect();
    assert_eq!(
        words,
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "program",
            "poststop"
        ]
    );
    let state: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(bundle.path().join("poststart")).expect("state"))
            .expect("json");
    assert_eq!(state["id"], bundle.id);
    assert_eq!(state["status"], "running");
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1));
}

#[test]
fn a_failing_hook_undoes_create_and_says_what_it_said() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["hooks"]["prestart"] = shell("echo no luck >&2; exit 4");
    bundle.config["hooks"]["poststop"] =
        shell(&format!("touch {}", bundle.path().join("poststop").display()));
    let ran = bundle.verb(&["create"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("prestart hook /bin/sh") && ran.stderr.contains("no luck"),
        "{}",
        ran.stderr
    );
    assert!(
        bundle.path().join("poststop").exists(),
        "poststop takes down what prestart set up"
    );
    bundle.assert_clean();
}

/// runtime.md#lifecycle: a poststop hook that fails is warned of, and the rest goes on as if it had not.
#[test]
fn a_failing_poststop_hook_is_a_warning() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["sh", "-c", "exit 3"]);
    let later = bundle.path().join("later");
    bundle.config["hooks"]["poststop"] = json!([
        {"path": "/bin/false"},
        {"path": "/bin/touch", "args": ["touch", later]},
    ]);
    let ran = bundle.verb(&["run"]);
    assert_eq!(ran.code, 3, "the program's own code: {}", ran.stderr);
    assert!(
        ran.stderr
            .contains("warning: poststop hook /bin/false: exit status: 1\n"),
        "{}",
        ran.stderr
    );
    assert!(later.exists(), "those behind it run");
    std::fs::remove_file(&later).expect("remove");
    let _ = bundle.verb(&["create"]).ok();
    let deleted = bundle.output(&["delete", "--force", &bundle.id]);
    assert_eq!(deleted.code, 0, "{}", deleted.stderr);
    assert!(deleted.stderr.contains("poststop hook /bin/false") && later.exists());
    bundle.assert_clean();
}

#[test]
fn a_hook_past_its_time_is_killed() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["hooks"]["createRuntime"] = shell("sleep 1000");
    bundle.config["hooks"]["createRuntime"][0]["timeout"] = 1.into();
    let ran = bundle.verb(&["create"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("did not end within 1 s"),
        "{}",
        ran.stderr
    );
    bundle.assert_clean();
}
