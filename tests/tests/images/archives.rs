//! `save`, `load` and `import`, with skopeo, umoci and tar as peers.

use std::path::Path;

use berth_tests::berth::busybox_archive;
use berth_tests::{Berth, Need, Terminal, require};

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

/// This must fail with words that name what was attempted, on what and why.
#[track_caller]
fn refused(berth: &Berth, arguments: &[&str], words: &[&str]) {
    let ran = berth.run(arguments);
    assert_ne!(ran.code, 0, "{arguments:?}: {}", ran.stdout);
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "{arguments:?}: no {word:?} in {}",
            ran.stderr
        );
    }
}

#[test]
fn what_is_no_archive_is_named_with_the_reason() {
    let berth = Berth::new();
    let at = |name: &str| berth.scratch().join(name);
    std::fs::write(at("junk"), "junk").expect("write");
    let root = busybox_archive(berth.scratch());
    refused(
        &berth,
        &["load", "-i", text(&root)],
        &["load", text(&root), "manifest.json", "hint:", "berth import"],
    );
    refused(
        &berth,
        &["load", "-i", text(&at("junk"))],
        &["load", text(&at("junk")), "ends within"],
    );
    refused(
        &berth,
        &["import", text(&at("junk")), "x"],
        &["import", text(&at("junk")), "ends within"],
    );
    refused(
        &berth,
        &["import", text(&at("gone")), "x"],
        &[text(&at("gone")), "No such file"],
    );
    refused(
        &berth,
        &["import", text(berth.scratch()), "x"],
        &[text(berth.scratch()), "directory"],
    );
    refused(
        &berth,
        &["import", "https://host/x.tar", "x"],
        &["https://host/x.tar", "not supported"],
    );
    assert!(!berth.feed("", ["load"]).stderr.is_empty());
    assert_eq!(berth.run(["images", "-aq"]).ok(), "");
}

#[test]
fn archives_are_neither_read_from_nor_written_to_a_terminal() {
    if !require(&[Need::Root]) {
        return;
    }
    let berth = Berth::with_busybox();
    for verb in [&["load"][..], &["import", "-", "x"], &["save", "busybox"]] {
        let mut terminal = Terminal::start(&berth.command(verb), 24, 80);
        terminal.wait_for("a terminal");
        assert_ne!(terminal.end(), 0, "{verb:?}: {}", terminal.screen);
    }
}

#[test]
fn a_file_is_saved_whole_or_stays_as_it_was() {
    if !require(&[Need::Root]) {
        return;
    }
    let berth = Berth::with_busybox();
    let directory = berth.scratch().join("out");
    std::fs::create_dir(&directory).expect("make a directory");
    let file = directory.join("images.tar");
    refused(
        &berth,
        &["save", "-o", text(&file), "busybox", "nonesuch"],
        &["nonesuch"],
    );
    let names = |directory: &Path| std::fs::read_dir(directory).expect("list").count();
    assert_eq!(names(&directory), 0);
    std::fs::write(&file, "precious").expect("write");
    refused(&berth, &["save", "-o", text(&file), "nonesuch"], &["nonesuch"]);
    assert_eq!(std::fs::read(&file).expect("read"), b"precious");
    let _ = berth.run(["save", "-o", text(&file), "busybox"]).ok();
    let loaded = Berth::new().run(["load", "-q", "-i", text(&file)]).ok();
    assert_eq!(
        loaded, "Loaded image: busybox:latest",
        "--quiet hides progress, not the answer"
    );
    assert_eq!(names(&directory), 1);
}

#[test]
fn a_health_check_is_imported() {
    if !require(&[Need::Root]) {
        return;
    }
    let berth = Berth::new();
    let archive = busybox_archive(berth.scratch());
    let change = "HEALTHCHECK --interval=5s --retries=2 CMD test -e /ok";
    let _ = berth
        .run(["import", "-c", change, text(&archive), "checked"])
        .ok();
    let template = "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}}";
    let shown = berth.run(["inspect", "-f", template, "checked"]).ok();
    assert_eq!(shown, "[CMD-SHELL test -e /ok] 5000000000");
    refused(&berth, &["import", "-c", "RUN x", text(&archive), "x"], &["RUN"]);
}
