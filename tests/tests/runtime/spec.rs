//! `spec`: what it writes runs.

use berth_tests::{Bundle, Need, require};
use serde_json::Value;

#[test]
fn what_it_writes_runs() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["true"]);
    let made = bundle.path().join("made");
    std::fs::create_dir(&made).expect("directory");
    let _ = bundle
        .output(&["spec", "--bundle", &made.display().to_string()])
        .ok();
    let text = std::fs::read_to_string(made.join("config.json")).expect("config.json");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(config["process"]["terminal"], true);
    assert_eq!(config["process"]["args"], serde_json::json!(["sh"]));
    assert_eq!(config["root"]["path"], "rootfs");
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["hostname"]);
    // The host of this test may not allow the limit a fresh configuration raises.
    config["process"]["rlimits"] = Value::Null;
    bundle.config = config;
    assert_eq!(bundle.verb(&["run"]).ok(), "berth");
    bundle.assert_clean();
}

#[test]
fn an_existing_file_is_left_alone() {
    let bundle = Bundle::new(&["true"]);
    let ran = bundle.output(&["spec"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("config.json"),
        "{}",
        ran.stderr
    );
    let text = std::fs::read_to_string(bundle.path().join("config.json")).expect("read");
    assert!(text.contains("berth-e2e"), "unchanged");
}

#[test]
fn without_privilege_it_maps_the_caller() {
    let bundle = Bundle::new(&["true"]);
    let made = bundle.path().join("rootless");
    std::fs::create_dir(&made).expect("directory");
    let _ = bundle
        .output(&["spec", "--rootless", "-b", &made.display().to_string()])
        .ok();
    let text = std::fs::read_to_string(made.join("config.json")).expect("config.json");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        config["linux"]["uidMappings"][0]["hostID"],
        rustix::process::geteuid().as_raw()
    );
    let kinds: Vec<_> = config["linux"]["namespaces"]
        .as_array()
        .expect("list")
        .iter()
        .map(|n| n["type"].clone())
        .collect();
    assert!(kinds.contains(&"user".into()), "{kinds:?}");
}
