//! `login` and `logout`, with a registry that asks for a password.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use berth_tests::{Berth, Output, Registry};

use crate::fixture::{Pushed, pushed, run, text};

/// `berth` with credentials of the test's own.
fn berth_as(berth: &Berth, docker: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = berth.command(arguments);
    command.env("DOCKER_CONFIG", docker);
    run_with_input(command, input)
}

fn run_with_input(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start berth");
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    // A command that fails before it reads closes the pipe.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("wait for berth").into()
}

#[test]
fn a_password_opens_the_registry_until_logout() {
    let Some(pushed) = pushed(Registry::start_with_password, &["one"], "private:1") else {
        return;
    };
    let Pushed {
        berth,
        registry,
        image,
        ..
    } = pushed;
    let (host, docker) = (registry.host(), berth.scratch().join("docker"));

    let refused = berth_as(&berth, &docker, &["pull", &image], "");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(&host), "{}", refused.stderr);
    let login = ["login", "--username", "me", "--password-stdin", host.as_str()];
    let wrong = berth_as(&berth, &docker, &login, "guess\n");
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(
        wrong.stderr.contains(&host) && !wrong.stderr.contains("guess"),
        "{wrong:?}"
    );
    assert!(
        wrong.stderr.contains("user name or password is wrong"),
        "{wrong:?}"
    );
    // A question needs somebody to answer it.
    let asked = berth_as(&berth, &docker, &["login", &host], "me\ns3cret\n");
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(asked.stderr.contains("--password-stdin"), "{asked:?}");
    assert!(
        !docker.join("config.json").exists(),
        "a refused password is not kept"
    );

    let said = berth_as(&berth, &docker, &login, "s3cret\n").ok();
    assert_eq!(said, "Login Succeeded");
    let mode = std::fs::metadata(docker.join("config.json"))
        .expect("credentials are kept")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    // The file is docker's own form, so skopeo reads it too.
    run(
        "skopeo",
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            "--authfile",
            text(&docker.join("config.json")),
            &format!("docker://{image}"),
        ],
    );
    let _ = berth_as(&berth, &docker, &["pull", "-q", &image], "").ok();
    let pushed = format!("{host}/mine:1");
    let _ = berth.run(["tag", &image, &pushed]).ok();
    let _ = berth_as(&berth, &docker, &["push", "-q", &pushed], "").ok();

    assert!(
        berth_as(&berth, &docker, &["logout", &host], "")
            .ok()
            .contains("Removed")
    );
    assert!(
        berth_as(&berth, &docker, &["logout", &host], "")
            .ok()
            .contains("Not logged in")
    );
    assert_eq!(berth_as(&berth, &docker, &["pull", &image], "").code, 1);
}

/// A credential helper as docker's: a shell script that keeps what it is told in files beside it.
fn helper(directory: &Path, name: &str) {
    let program = directory.join(format!("docker-credential-{name}"));
    let script = r#"#!/bin/sh
here=$(dirname "$0")
echo "$1" >>"$here/asked"
case $1 in
get) read -r server; [ -e "$here/stored" ] && grep -q "\"$server\"" "$here/stored" && cat "$here/stored" && exit 0
     echo "credentials not found in native keychain"; exit 1 ;;
store) cat >"$here/stored" ;;
erase) rm -f "$here/stored" ;;
esac
"#;
    std::fs::write(&program, script).expect("write a helper");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("make it executable");
}

/// What a helper was asked, in order.
fn asked(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("asked")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn credential_helpers_are_asked_told_and_named_when_they_fail() {
    let Some(pushed) = pushed(Registry::start_with_password, &["one"], "private:1") else {
        return;
    };
    let Pushed {
        berth,
        registry,
        image,
        ..
    } = pushed;
    let (host, docker) = (registry.host(), berth.scratch().join("docker"));
    std::fs::create_dir(&docker).expect("make a directory");
    let helpers = berth.scratch().join("helpers");
    std::fs::create_dir(&helpers).expect("make a directory");
    helper(&helpers, "berth-test");
    let path = format!("{}:{}", text(&helpers), std::env::var("PATH").unwrap_or_default());
    let configure = |config: serde_json::Value| {
        std::fs::write(docker.join("config.json"), config.to_string()).expect("write docker's config");
    };
    let berth_with = |arguments: &[&str], input: &str| {
        let mut command = berth.command(arguments);
        command.env("DOCKER_CONFIG", &docker).env("PATH", &path);
        run_with_input(command, input)
    };
    let stored = serde_json::json!({"ServerURL": host, "Username": "me", "Secret": "s3cret"});

    // For this registry only.
    configure(serde_json::json!({"credHelpers": {(host.as_str()): "berth-test"}}));
    let empty = berth_with(&["pull", "-q", &image], "");
    assert_eq!(
        empty.code, 1,
        "a helper that knows nothing gives nothing: {empty:?}"
    );
    std::fs::write(helpers.join("stored"), stored.to_string()).expect("tell the helper");
    assert_eq!(berth_with(&["pull", "-q", &image], "").ok(), image);
    assert_eq!(asked(&helpers), ["get", "get"]);
    configure(serde_json::json!({"credHelpers": {"elsewhere.example": "berth-test"}}));
    assert_eq!(berth_with(&["pull", "-q", &image], "").code, 1);
    assert_eq!(
        asked(&helpers),
        ["get", "get"],
        "not asked about a registry that is not its own"
    );

    // For all registries: login stores there, and the file holds no secret.
    std::fs::remove_file(helpers.join("stored")).expect("forget");
    configure(serde_json::json!({"credsStore": "berth-test"}));
    let login = ["login", "--username", "me", "--password-stdin", host.as_str()];
    assert_eq!(berth_with(&login, "s3cret\n").ok(), "Login Succeeded");
    let told = std::fs::read_to_string(helpers.join("stored")).expect("login told the helper");
    let told: serde_json::Value = serde_json::from_str(&told).expect("it was told JSON");
    assert_eq!(told, stored);
    let config = std::fs::read_to_string(docker.join("config.json")).expect("docker's config");
    assert!(
        !config.contains("s3cret") && !config.contains("bWU6czNjcmV0"),
        "{config}"
    );
    assert_eq!(berth_with(&["pull", "-q", &image], "").ok(), image);
    let _ = berth_with(&["logout", &host], "").ok();
    assert!(!helpers.join("stored").exists(), "logout erases");
    assert_eq!(berth_with(&["pull", "-q", &image], "").code, 1);

    // One that is not there.
    configure(serde_json::json!({"credsStore": "berth-absent"}));
    let absent = berth_with(&["pull", "-q", &image], "");
    assert_eq!(absent.code, 1, "{absent:?}");
    assert!(
        absent.stderr.contains("docker-credential-berth-absent"),
        "{}",
        absent.stderr
    );
}
