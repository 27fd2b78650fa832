//! Bad input: a message that names what and where, a code other than zero, nothing left behind.

use berth_tests::{Berth, Need, Registry, require};

use crate::fixture::{Pushed, count, oci, pushed};

#[test]
fn errors_name_what_and_where() {
    if !require(&[Need::Root, Need::Program("docker-registry")]) {
        return;
    }
    let (berth, registry) = (Berth::with_busybox(), Registry::start());
    let absent = format!("{}/absent:1", registry.host());
    let nobody = format!("127.0.0.1:{}/x:1", berth_tests::registry::free_port());
    for (arguments, words) in [
        (&["pull", "UPPER/case"][..], &["UPPER/case"][..]),
        (&["pull", &absent], &[absent.as_str()]),
        (&["pull", &nobody], &[nobody.as_str(), "refused"]),
        (&["push", "nothing:here"], &["nothing:here"]),
        (&["tag", "nothing:here", "x"], &["no such image: nothing:here"]),
        (&["tag", "busybox", "a@sha256:00"], &["a@sha256:00"]),
        (&["rmi", "nothing:here"], &["no such image: nothing:here"]),
        (&["history", "nothing:here"], &["no such image: nothing:here"]),
        (&["inspect", "nothing:here"], &["no such object: nothing:here"]),
        (&["save", "-o", "/nowhere/x", "busybox"], &["/nowhere/x"]),
        (&["load", "-i", "/nowhere/x"], &["/nowhere/x"]),
        (&["import", "/nowhere/x"], &["/nowhere/x"]),
        (&["pull", "--all-tags", "busybox:1"], &["--all-tags", "busybox:1"]),
    ] {
        let output = berth.run(arguments);
        assert_ne!(output.code, 0, "{arguments:?}");
        assert_eq!(output.stdout.trim_matches(['[', ']', '\n']), "", "{arguments:?}");
        for word in words {
            assert!(output.stderr.contains(word), "{arguments:?}: {}", output.stderr);
        }
        assert!(
            output.stderr.starts_with("berth: "),
            "{arguments:?}: {}",
            output.stderr
        );
    }
    assert_eq!(count(&berth.root().join("ingest")), 0);
}

/// A wrong name or port is told at once: nothing is sent a second time to where nothing ever answered.
#[test]
fn a_registry_nobody_has_heard_of_is_asked_once() {
    let berth = Berth::new();
    let nobody = format!("127.0.0.1:{}/x:1", berth_tests::registry::free_port());
    let output = berth.run(["--log-level", "debug", "pull", &nobody]);
    assert_eq!(output.code, 1, "{output:?}");
    // The cause, without the layers of the HTTP client.
    assert!(
        output.stderr.contains("/manifests/1: Connection refused"),
        "{}",
        output.stderr
    );
    let asked = output
        .stderr
        .lines()
        .filter(|line| line.contains("GET http") && !line.starts_with("berth: pull"));
    assert_eq!(asked.count(), 1, "{}", output.stderr);
}

#[test]
fn a_blob_damaged_in_the_registry_is_named_and_not_kept() {
    let Some(pushed) = pushed(Registry::start, &["one", "two"], "damaged:1") else {
        return;
    };
    let Pushed {
        berth,
        registry,
        layout,
        image,
    } = pushed;
    let layers = crate::fixture::run(
        "skopeo",
        &["inspect", "--format", "{{index .Layers 1}}", &oci(&layout)],
    );
    let hex = layers.trim_start_matches("sha256:");
    let stored = registry
        .storage()
        .join("docker/registry/v2/blobs/sha256")
        .join(&hex[..2])
        .join(hex)
        .join("data");
    let mut bytes = std::fs::read(&stored).expect("the registry stores the blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&stored, bytes).expect("damage the blob");

    let output = berth.run(["pull", &image]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.stderr.contains(hex) && output.stderr.contains("corrupt") && output.stderr.contains(&image),
        "{}",
        output.stderr
    );
    assert_eq!(count(&berth.root().join("ingest")), 0);
    assert_eq!(count(&berth.root().join("layers")), 0);
    assert!(!berth.root().join("blobs/sha256").join(hex).exists());
    assert_eq!(berth.run(["images", "-q"]).ok(), "");
}

#[test]
fn errors_that_have_an_answer_give_it() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    for (arguments, hint) in [
        (&["stop", "nobody"][..], "hint: `berth ps --all`"),
        (&["run", "--rm", "busybox", "nowhere"], "hint: give its path"),
        (
            &["run", "--rm", "--network", "none-such", "busybox", "true"],
            "hint: `berth network ls`",
        ),
        (
            &["run", "--rm", "--pull", "never", "absent", "true"],
            "hint: `berth images`",
        ),
    ] {
        let output = berth.run(arguments);
        assert_ne!(output.code, 0, "{arguments:?}");
        assert!(output.stderr.contains(hint), "{arguments:?}: {}", output.stderr);
    }
}
