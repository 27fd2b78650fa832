//! `pull` and `push`.

use berth_tests::{Berth, Need, Registry, require};

use crate::fixture::{NEEDS, Pushed, count, layout, oci, pushed, run, text};

#[test]
fn what_skopeo_pushed_is_pulled_and_what_is_pushed_skopeo_reads_unchanged() {
    let Some(pushed) = pushed(Registry::start, &["one", "two"], "in/image:1") else {
        return;
    };
    let Pushed {
        berth,
        registry,
        layout,
        image,
    } = pushed;
    let digest = run("skopeo", &["inspect", "--format", "{{.Digest}}", &oci(&layout)]);

    let said = berth.run(["pull", &image]).ok();
    assert!(
        said.contains(&format!("Digest: {digest}")) && said.ends_with(&image),
        "{said}"
    );
    assert_eq!(berth.run(["pull", "--quiet", &image]).ok(), image);
    assert_eq!(count(&berth.root().join("ingest")), 0);
    let by_digest = format!("{}/in/image@{digest}", registry.host());
    assert_eq!(berth.run(["pull", "-q", &by_digest]).ok(), by_digest);

    let target = format!("{}/out/image:2", registry.host());
    let _ = berth.run(["tag", &image, &target]).ok();
    let said = berth.run(["push", &target]).ok();
    assert!(said.contains(&digest), "{said}");
    let there = run(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &format!("docker://{target}"),
        ],
    );
    assert_eq!(there, digest, "the manifest went through unchanged");
    // skopeo checks every blob it copies.
    let copy = format!("oci:{}:copy", text(&berth.scratch().join("copy")));
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{target}"),
            &copy,
        ],
    );
}

#[test]
fn each_step_of_a_layer_is_told_once() {
    let Some(pushed) = pushed(Registry::start, &["one", "two"], "told:1") else {
        return;
    };
    let Pushed { berth, image, .. } = pushed;
    let pulled = berth.run(["pull", &image]);
    for (word, times) in [
        ("Transferring", 2),
        ("Verified", 2),
        ("Complete", 2),
        ("Already exists", 0),
    ] {
        let told = pulled
            .stderr
            .lines()
            .filter(|line| line.ends_with(&format!(": {word}")))
            .count();
        assert_eq!(told, times, "{word}: {}", pulled.stderr);
    }
    let again = berth.run(["pull", &image]);
    assert_eq!(again.stderr.matches(": Already exists\n").count(), 2, "{again:?}");
    assert_eq!(
        again.stderr.matches("Verified").count(),
        0,
        "nothing was transferred: {again:?}"
    );
}

#[test]
fn layers_are_shared_between_images() {
    let Some(pushed) = pushed(Registry::start, &["one", "two"], "shared:1") else {
        return;
    };
    let Pushed {
        berth,
        registry,
        layout,
        image: first,
    } = pushed;
    let tree = berth.scratch().join("more");
    std::fs::create_dir(&tree).expect("make a directory");
    std::fs::write(tree.join("three"), "three").expect("write a file");
    let image = format!("{}:latest", text(&layout));
    run("umoci", &["insert", "--image", &image, text(&tree), "/data"]);
    let second = registry.push_with_skopeo(&oci(&layout), "shared:2");

    let layers = berth.root().join("layers");
    let _ = berth.run(["pull", "-q", &first]).ok();
    assert_eq!(count(&layers), 2);
    let _ = berth.run(["pull", "-q", &second]).ok();
    assert_eq!(count(&layers), 3, "two of the three were there");
    let _ = berth.run(["rmi", &first]).ok();
    assert_eq!(count(&layers), 3, "the other image still uses them");
    let _ = berth.run(["rmi", &second]).ok();
    assert_eq!(count(&layers), 0);
    assert_eq!(count(&berth.root().join("blobs/sha256")), 0);
}

#[test]
fn an_index_gives_the_platform_asked_for() {
    if !require(&NEEDS) {
        return;
    }
    let (berth, registry) = (Berth::new(), Registry::start());
    let scratch = berth.scratch();
    let arm = layout(&scratch.join("arm"), &["arm"]);
    run(
        "umoci",
        &[
            "config",
            "--image",
            &format!("{}:latest", text(&arm)),
            "--architecture",
            "arm64",
        ],
    );
    let image = registry.push_with_skopeo(&oci(&arm), "other:arm");

    let refused = berth.run(["pull", "--platform", "linux/amd64", &image]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for word in [image.as_str(), "linux/amd64", "linux/arm64"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    let _ = berth
        .run(["pull", "-q", "--platform", "linux/arm64", &image])
        .ok();
    let found = berth
        .run(["inspect", "--format", "{{.Architecture}}", &image])
        .ok();
    assert_eq!(found, "arm64");
    let wrong = berth.run(["pull", "--platform", "amd64/linux/x/y", &image]);
    assert!(
        wrong.code != 0 && wrong.stderr.contains("amd64/linux/x/y"),
        "{wrong:?}"
    );
}

/// Puts an index of these images of the registry's repository under `tag`.
fn put_index(registry: &Registry, repository: &str, tag: &str, platforms: &[(&str, &str)]) {
    let manifests: Vec<serde_json::Value> = platforms
        .iter()
        .map(|(tag, architecture)| {
            let image = format!("docker://{}/{repository}:{tag}", registry.host());
            // A manifest may end with a line feed, which counts.
            let count = format!("skopeo inspect --raw --tls-verify=false {image} | wc -c");
            let size: u64 = run("sh", &["-c", &count])
                .trim()
                .parse()
                .expect("wc prints a number");
            let digest = run(
                "skopeo",
                &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &image],
            );
            let media_type = "application/vnd.oci.image.manifest.v1+json";
            let platform = serde_json::json!({"os": "linux", "architecture": architecture});
            serde_json::json!({"mediaType": media_type, "digest": digest, "size": size, "platform": platform})
        })
        .collect();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).to_string();
    let url = format!("http://{}/v2/{repository}/manifests/{tag}", registry.host());
    let header = format!("Content-Type: {media_type}");
    run(
        "curl",
        &["-fsS", "-X", "PUT", "-H", &header, "--data-binary", &index, &url],
    );
}

fn raw_manifest(image: &str) -> String {
    run("skopeo", &["inspect", "--raw", "--tls-verify=false", image])
}

#[test]
fn of_an_index_what_is_here_is_pushed_and_said() {
    if !require(&NEEDS) || !require(&[Need::Program("curl")]) {
        return;
    }
    let (berth, registry) = (Berth::new(), Registry::start());
    let scratch = berth.scratch();
    for architecture in ["amd64", "arm64"] {
        let directory = scratch.join(architecture);
        let layout = layout(&directory, &[architecture]);
        let latest = format!("{}:latest", text(&layout));
        run(
            "umoci",
            &["config", "--image", &latest, "--architecture", architecture],
        );
        registry.push_with_skopeo(&oci(&layout), &format!("multi:{architecture}"));
    }
    put_index(
        &registry,
        "multi",
        "both",
        &[("amd64", "amd64"), ("arm64", "arm64")],
    );
    let host = registry.host();
    let both = format!("{host}/multi:both");
    let _ = berth.run(["pull", "-q", "--platform", "linux/arm64", &both]).ok();
    let target = format!("{host}/again:1");
    let _ = berth.run(["tag", &both, &target]).ok();

    let wrong = berth.run(["push", "--platform", "linux/amd64", &target]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    for word in [target.as_str(), "linux/amd64", "linux/arm64"] {
        assert!(wrong.stderr.contains(word), "{word}: {}", wrong.stderr);
    }
    let pushed = berth.run(["push", "--platform", "linux/arm64", &target]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    assert!(
        pushed.stderr.contains("only linux/arm64 of its platforms"),
        "{}",
        pushed.stderr
    );
    assert_eq!(
        raw_manifest(&format!("docker://{target}")),
        raw_manifest(&format!("docker://{host}/multi:arm64")),
        "the manifest as it was pulled"
    );
}

#[test]
fn all_tags_of_a_repository_are_pushed_and_no_other() {
    let Some(pushed) = pushed(Registry::start, &["one"], "in:1") else {
        return;
    };
    let Pushed {
        berth,
        registry,
        image: source,
        ..
    } = pushed;
    let _ = berth.run(["pull", "-q", &source]).ok();
    let out = format!("{}/out", registry.host());
    for name in [format!("{out}:1"), format!("{out}:2"), format!("{out}/below:3")] {
        let _ = berth.run(["tag", &source, &name]).ok();
    }
    let said = berth.run(["push", "--quiet", "--all-tags", &out]).ok();
    assert_eq!(said, format!("{out}:1\n{out}:2"));
    let listed = run(
        "skopeo",
        &["list-tags", "--tls-verify=false", &format!("docker://{out}")],
    );
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("skopeo prints JSON");
    let mut tags: Vec<&str> = listed["Tags"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|tag| tag.as_str())
        .collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2"]);

    let one = berth.run(["push", "--all-tags", &format!("{out}:1")]);
    assert!(one.code == 1 && one.stderr.contains("out:1"), "{one:?}");
    let none = berth.run(["push", "--all-tags", &format!("{}/nothing", registry.host())]);
    assert!(none.code == 1 && none.stderr.contains("/nothing"), "{none:?}");
}

#[test]
fn a_mirror_that_fails_is_told_with_its_cause_and_passed_over() {
    let Some(pushed) = pushed(Registry::start, &["one"], "mirrored:1") else {
        return;
    };
    let Pushed {
        berth,
        registry,
        image,
        ..
    } = pushed;
    let (host, nobody) = (registry.host(), berth_tests::registry::free_port());
    // The first speaks no TLS, at the second nobody listens.
    let mirrors = [format!("https://{host}"), format!("http://127.0.0.1:{nobody}")];
    let config = serde_json::json!({"registries": {"mirrors": {&host: mirrors}}});
    let file = berth.scratch().join("config.json");
    std::fs::write(&file, config.to_string()).expect("write");
    let pulled = berth.run(["--config", text(&file), "pull", &image]);
    assert_eq!(pulled.code, 0, "{pulled:?}");
    for (mirror, cause) in mirrors
        .iter()
        .zip(["no TLS is spoken there", "Connection refused"])
    {
        let told = pulled.stderr.lines().find(|line| line.contains(mirror.as_str()));
        assert!(
            told.is_some_and(|line| line.contains(cause)),
            "{mirror}: {}",
            pulled.stderr
        );
    }
    assert_eq!(
        pulled.stderr.matches("failed, trying the next").count(),
        2,
        "each is asked once, not once a blob: {}",
        pulled.stderr
    );
    let gone = berth.run(["--config", "/no/such/file", "pull", &image]);
    assert!(
        gone.code == 1 && gone.stderr.contains("/no/such/file"),
        "{gone:?}"
    );
}
