//! `features`: says what is so.

use berth_tests::Bundle;
use serde_json::Value;

#[test]
fn it_names_what_the_runtime_takes() {
    let bundle = Bundle::new(&["true"]);
    let features: Value = serde_json::from_str(&bundle.output(&["features"]).ok()).expect("JSON");
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
    let has = |at: &str, word: &str| {
        let list = features
            .pointer(at)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        assert!(list.contains(&word.into()), "{at} has no {word}: {list:?}");
    };
    for hook in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ] {
        has("/hooks", hook);
    }
    for option in ["ro", "rbind", "rslave", "unbindable", "rro", "idmap", "tmpcopyup"] {
        has("/mountOptions", option);
    }
    for namespace in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
        has("/linux/namespaces", namespace);
    }
    has("/linux/capabilities", "CAP_SYS_ADMIN");
    has("/linux/seccomp/actions", "SCMP_ACT_NOTIFY");
    has("/linux/seccomp/archs", "SCMP_ARCH_X86_64");
    assert_eq!(features["linux"]["intelRdt"]["enabled"], false, "{features}");
    assert_eq!(features["linux"]["cgroup"]["systemd"], false, "{features}");
}
