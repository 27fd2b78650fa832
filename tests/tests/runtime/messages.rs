//! What engines read in messages: runc's words for a verb that does not fit, and one line without privilege.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use berth_tests::{Bundle, Need, require};

#[test]
fn verbs_that_do_not_fit_answer_as_runc() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    let id = bundle.id.clone();
    let refused = |args: &[&str], code: i32, words: &str| {
        let ran = bundle.output(args);
        assert!(
            ran.code == code && ran.stderr.contains(words),
            "{args:?}: {} {}",
            ran.code,
            ran.stderr
        );
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    };
    let _ = bundle.verb(&["run", "--detach"]).ok();
    refused(&["start", &id], 1, "cannot start an already running container");
    refused(&["resume", &id], 1, "container not paused");
    refused(
        &["delete", &id],
        1,
        &format!("cannot delete container {id} that is not stopped: running"),
    );
    let _ = bundle.verb(&["pause"]).ok();
    refused(
        &["exec", &id, "true"],
        255,
        "cannot exec in a paused container (use --ignore-paused to override)",
    );
    let _ = bundle.output(&["kill", &id, "KILL"]).ok();
    for _ in 0..500 {
        if bundle.state_field("status") == "stopped" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    refused(&["kill", &id], 1, "container not running");
    refused(&["exec", &id, "true"], 255, "cannot exec in a stopped container");
    refused(&["start", &id], 1, "cannot start a container that has stopped");
    refused(&["pause", &id], 1, "container not running");
    refused(&["update", "--pids-limit", "5", &id], 1, "container not running");
}

/// runc's: `--log-format` is that of stderr too when no file is named.
#[test]
fn without_a_log_file_stderr_has_its_form() {
    let bundle = Bundle::new(&["true"]);
    let ran = bundle.output(&["--log-format", "json", "state", "nonesuch"]);
    let line: serde_json::Value = serde_json::from_str(&ran.stderr).expect("one JSON object");
    assert_eq!(line["level"], "error", "{line}");
    assert!(
        line["msg"].as_str().is_some_and(|text| text.contains("nonesuch")),
        "{line}"
    );
    let log = bundle.path().join("log");
    let log = log.to_str().expect("UTF-8");
    let ran = bundle.output(&["--log", log, "--log-format", "json", "state", "nonesuch"]);
    assert!(ran.stderr.starts_with("berth-runtime: "), "{}", ran.stderr);
}

#[test]
fn a_caller_without_privilege_gets_one_clear_line() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["true"]);
    let _ = bundle.command(&[]);
    let copy = bundle.path().join("berth-runtime");
    berth_tests::berth::copy_program(&berth_tests::binary("berth-runtime"), &copy);
    for path in [bundle.path(), copy.as_path()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    for verb in ["create", "run"] {
        let output = Command::new(&copy)
            .arg("--root")
            .arg(bundle.state())
            .args([verb, &bundle.id])
            .current_dir(bundle.path())
            .stdin(Stdio::null())
            .uid(65534)
            .gid(65534)
            .output()
            .expect("start");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{verb}: {text}");
        assert!(
            text.contains("needs root") && text.lines().count() == 1,
            "{verb}: {text}"
        );
    }
    bundle.assert_clean();
}
