//! `pull` and `push`.

use berth_tests::{Berth, Need, Registry, require};

use crate::fixture::{count, layout, oci, run, text};

const NEEDS: [Need; 4] = [
    Need::Root,
    Need::Program("docker-registry"),
    Need::Program("skopeo"),
    Need::Program("umoci"),
];

#[test]
fn what_skopeo_pushed_is_pulled_and_what_is_pushed_skopeo_reads_unchanged() {
    if !require(&NEEDS) {
        return;
    }
    let (berth, registry) = (Berth::new(), Registry::start());
    let layout = layout(berth.scratch(), &["one", "two"]);
    let image = registry.push_with_skopeo(&oci(&layout), "in/image:1");
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
    if !require(&NEEDS) {
        return;
    }
    let (berth, registry) = (Berth::new(), Registry::start());
    let layout = layout(berth.scratch(), &["one", "two"]);
    let image = registry.push_with_skopeo(&oci(&layout), "told:1");
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
    if !require(&NEEDS) {
        return;
    }
    let (berth, registry) = (Berth::new(), Registry::start());
    let layout = layout(berth.scratch(), &["one", "two"]);
    let first = registry.push_with_skopeo(&oci(&layout), "shared:1");
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
