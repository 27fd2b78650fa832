//! `save`, `load` and `import`, with skopeo, umoci and tar as peers.

use berth_tests::berth::busybox_archive;
use berth_tests::{Berth, Need, require};

use crate::fixture::{layout, run, text};

#[test]
fn peers_read_what_is_saved_and_berth_what_they_write() {
    if !require(&[Need::Root, Need::Program("skopeo"), Need::Program("umoci")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let scratch = berth.scratch();
    let id = berth.run(["images", "-q", "--no-trunc", "busybox"]).ok();
    for (format, transport) in [
        ("docker-archive", "docker-archive"),
        ("oci-archive", "oci-archive"),
    ] {
        let file = scratch.join(format!("{format}.tar"));
        let _ = berth
            .run(["save", "--format", format, "-o", text(&file), "busybox"])
            .ok();
        let copy = scratch.join(format!("copy-{format}"));
        let source = format!("{transport}:{}", text(&file));
        run(
            "skopeo",
            &["copy", "-q", &source, &format!("oci:{}:t", text(&copy))],
        );

        let other = Berth::new();
        let _ = other.run(["load", "-i", text(&file)]).ok();
        assert_eq!(other.run(["images", "-q", "--no-trunc"]).ok(), id, "{format}");
    }
    let saved = scratch.join("saved");
    let _ = berth
        .run([
            "save",
            "--format",
            "oci-dir",
            "-o",
            text(&saved),
            "busybox:latest",
        ])
        .ok();
    run("umoci", &["ls", "--layout", text(&saved)]);

    let layout = layout(scratch, &["one", "two"]);
    let archive = scratch.join("skopeo.tar");
    let target = format!("docker-archive:{}:made/by:skopeo", text(&archive));
    run(
        "skopeo",
        &["copy", "-q", &format!("oci:{}:latest", text(&layout)), &target],
    );
    let said = berth.run(["load", "-i", text(&archive)]).ok();
    assert!(said.contains("made/by:skopeo"), "{said}");
}

#[test]
fn a_tar_becomes_an_image_with_what_was_asked() {
    if !require(&[Need::Root]) {
        return;
    }
    let berth = Berth::new();
    let archive = busybox_archive(berth.scratch());
    let id = berth
        .run([
            "import",
            "--change",
            "ENV A=b",
            "-m",
            "why",
            text(&archive),
            "made:1",
        ])
        .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(berth.run(["inspect", "-f", "{{.Id}}", "made:1"]).ok(), id);
    let shown = berth
        .run(["inspect", "-f", "{{json .Config.Env}}", "made:1"])
        .ok();
    assert!(shown.contains("A=b"), "{shown}");
    assert!(
        berth
            .run(["history", "--no-trunc", "made:1"])
            .ok()
            .contains("why")
    );
}
