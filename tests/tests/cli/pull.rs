//! Images on the way to a container: `--pull`, `--platform`, and indexes with several platforms.

use std::path::{Path, PathBuf};
use std::process::Command;

use berth_tests::{Berth, Need, Output, Registry, require};
use serde_json::{Value, json};

use crate::fixture::berth;

fn has_peers() -> bool {
    require(&[Need::Program("docker-registry"), Need::Program("skopeo")])
}

#[track_caller]
fn skopeo(arguments: &[&str]) {
    let _ = Output::from(
        Command::new("skopeo")
            .args(arguments)
            .output()
            .expect("start skopeo"),
    )
    .ok();
}

/// An OCI layout with an index of two platforms: this host's is busybox, the other's is busybox with another label.
fn two_platforms(berth: &Berth) -> PathBuf {
    let layout = berth.scratch().join("layout");
    for (platform, name) in [("linux/amd64", "one"), ("linux/arm64", "two")] {
        let archive = berth.scratch().join("busybox.tar");
        let _ = berth
            .run([
                "import",
                "--platform",
                platform,
                "--change",
                &format!("LABEL platform={platform}"),
                archive.to_str().expect("UTF-8"),
                name,
            ])
            .ok();
        let saved = berth.scratch().join(format!("{name}.tar"));
        let _ = berth
            .run(["save", "-o", saved.to_str().expect("UTF-8"), name])
            .ok();
        skopeo(&[
            "copy",
            "--quiet",
            &format!("docker-archive:{}", saved.display()),
            &format!("oci:{}:{name}", layout.display()),
        ]);
        let _ = berth.run(["rmi", name]).ok();
    }
    merge(&layout);
    layout
}

/// Replaces the layout's two tags by one index of both manifests, tagged `both`.
fn merge(layout: &Path) {
    let index = layout.join("index.json");
    let mut top: Value = serde_json::from_slice(&std::fs::read(&index).expect("read")).expect("JSON");
    let manifests: Vec<Value> = top["manifests"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(manifest, architecture)| {
            json!({"mediaType": manifest["mediaType"], "digest": manifest["digest"], "size": manifest["size"],
                "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    let inner = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests})
    .to_string();
    let plain = layout.join("inner");
    std::fs::write(&plain, &inner).expect("write");
    let digest = Output::from(
        Command::new("sha256sum")
            .arg(&plain)
            .output()
            .expect("start sha256sum"),
    )
    .ok();
    let digest = &digest[..64];
    std::fs::rename(&plain, layout.join("blobs/sha256").join(digest)).expect("name the blob");
    top["manifests"] = json!([{"mediaType": "application/vnd.oci.image.index.v1+json", "size": inner.len(),
        "digest": format!("sha256:{digest}"), "annotations": {"org.opencontainers.image.ref.name": "both"}}]);
    std::fs::write(&index, top.to_string()).expect("write");
}

#[test]
fn an_index_gives_the_platform_asked_for() {
    let (Some(mut berth), true) = (berth(), has_peers()) else {
        return;
    };
    let registry = Registry::start();
    let layout = two_platforms(&berth);
    let image = format!("{}/two/platforms:both", registry.host());
    skopeo(&[
        "copy",
        "--quiet",
        "--all",
        "--dest-tls-verify=false",
        &format!("oci:{}:both", layout.display()),
        &format!("docker://{image}"),
    ]);
    berth.leave_network();
    let platform = || {
        berth
            .run([
                "inspect",
                "-f",
                "{{.Architecture}} {{.Config.Labels.platform}}",
                &image,
            ])
            .ok()
    };
    let _ = berth.run(["pull", "-q", &image]).ok();
    assert_eq!(platform(), "amd64 linux/amd64");
    let _ = berth
        .run(["pull", "-q", "--platform", "linux/arm64", &image])
        .ok();
    assert_eq!(platform(), "arm64 linux/arm64");
    let _ = berth
        .run(["pull", "-q", "--platform", "linux/amd64", &image])
        .ok();
    assert_eq!(platform(), "amd64 linux/amd64");
    let none = berth.run(["pull", "-q", "--platform", "linux/s390x", &image]);
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("linux/s390x"), "{}", none.stderr);
    for bad in ["a/b/c/d", "linux//x", ""] {
        let refused = berth.run(["pull", "--platform", bad, &image]);
        assert_ne!(refused.code, 0, "{bad:?}");
    }
    // Asked for another platform than the one that is here, run fetches it; asked for the one here, it does not.
    let shown = |flags: &[&str]| {
        let command = [&["create", "--name", "made", "--quiet"], flags, &[&image, "true"]];
        let _ = berth.run(command.concat()).ok();
        let label = berth
            .run(["inspect", "-f", "{{.Config.Labels.platform}}", "made"])
            .ok();
        let _ = berth.run(["rm", "made"]).ok();
        label
    };
    assert_eq!(shown(&["--platform", "linux/arm64"]), "linux/arm64");
    assert_eq!(shown(&["--platform", "linux/amd64"]), "linux/amd64");
    drop(registry);
    assert_eq!(
        shown(&["--platform", "linux/amd64"]),
        "linux/amd64",
        "without the registry"
    );
    let unreachable = berth.run(["create", "--platform", "linux/arm64", &image, "true"]);
    assert_eq!(
        unreachable.code, 125,
        "the other platform is not here: {}",
        unreachable.stderr
    );
    let never = berth.run([
        "run",
        "--rm",
        "--pull",
        "never",
        "--platform",
        "linux/arm64",
        &image,
        "true",
    ]);
    assert_eq!(never.code, 125);
    assert!(
        never.stderr.contains(&image) && never.stderr.contains("never"),
        "{}",
        never.stderr
    );
}

#[test]
fn the_pull_policy_decides_whether_the_registry_is_asked() {
    let (Some(mut berth), true) = (berth(), has_peers()) else {
        return;
    };
    let registry = Registry::start();
    berth.leave_network();
    let saved = berth.scratch().join("saved.tar");
    let _ = berth
        .run(["save", "-o", saved.to_str().expect("UTF-8"), "busybox"])
        .ok();
    let image = registry.push_with_skopeo(&format!("docker-archive:{}", saved.display()), "busybox:latest");
    let run = |policy: &str| {
        berth.run([
            "run",
            "--rm",
            "--quiet",
            "--network",
            "none",
            "--pull",
            policy,
            &image,
            "true",
        ])
    };
    let never = run("never");
    assert_eq!(never.code, 125);
    assert!(never.stderr.contains(&image), "{}", never.stderr);
    assert_eq!(run("missing").code, 0);
    drop(registry);
    assert_eq!(run("missing").code, 0, "it is here");
    assert_eq!(run("never").code, 0, "it is here");
    let always = run("always");
    assert_eq!(always.code, 125, "the registry is gone");
    assert!(always.stderr.contains(&image), "{}", always.stderr);
    assert_eq!(berth.run(["ps", "-aq"]).ok(), "");
    let bad = run("sometimes");
    assert_eq!(bad.code, 125);
    assert!(bad.stderr.contains("sometimes"), "{}", bad.stderr);
}
