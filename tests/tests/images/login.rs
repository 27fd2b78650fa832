//! `login` and `logout`, with a registry that asks for a password.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use berth_tests::{Berth, Need, Output, Registry, require};

use crate::fixture::{layout, oci, run, text};

/// What `htpasswd -Bbn -C 4 me s3cret` prints.
const HTPASSWD: &str = "me:$2b$04$1.T9.IP.8JNvBrBC3bTq7OEpLoaMz70AOrv6FwpZqKOz6qyZNdi7C\n";

/// `berth` with credentials of the test's own.
fn berth_as(berth: &Berth, docker: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = berth
        .command(arguments)
        .env("DOCKER_CONFIG", docker)
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
    let needs = [
        Need::Root,
        Need::Program("docker-registry"),
        Need::Program("skopeo"),
        Need::Program("umoci"),
    ];
    if !require(&needs) {
        return;
    }
    let berth = Berth::new();
    let users = berth.scratch().join("users");
    std::fs::write(&users, HTPASSWD).expect("write the users");
    let registry = Registry::start_with_htpasswd(&users);
    let (host, docker) = (registry.host(), berth.scratch().join("docker"));
    let image = format!("{host}/private:1");
    let layout = layout(berth.scratch(), &["one"]);
    let target = format!("docker://{image}");
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--dest-tls-verify=false",
            "--dest-creds",
            "me:s3cret",
            &oci(&layout),
            &target,
        ],
    );

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
            &target,
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
