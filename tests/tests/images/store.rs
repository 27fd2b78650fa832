//! `images`, `inspect`, `history`, `tag`, `rmi`, `image prune` and `system df`.

use berth_tests::{Berth, Need, Registry, require};

use crate::fixture::{count, layout, pushed, text};

fn loaded() -> Option<Berth> {
    if !require(&[Need::Root, Need::Program("umoci")]) {
        return None;
    }
    let berth = Berth::new();
    let layout = layout(berth.scratch(), &["one", "two"]);
    let said = berth.run(["load", "--input", text(&layout)]).ok();
    let name = said.rsplit(": ").next().unwrap_or_default().to_owned();
    let _ = berth.run(["tag", &name, "app:1"]).ok();
    Some(berth)
}

#[test]
fn an_image_is_listed_shown_and_told() {
    let Some(berth) = loaded() else { return };
    let _ = berth.run(["tag", "app:1", "app:again"]).ok();
    let table = berth.run(["images"]).ok();
    assert!(table.starts_with("REPOSITORY"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    let ids = berth.run(["images", "--quiet", "--no-trunc"]).ok();
    let id = ids.lines().next().expect("an image").to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let one = berth
        .run(["images", "--format", "{{.Repository}}:{{.Tag}}", "app"])
        .ok();
    assert_eq!(one.lines().count(), 2, "{one}");

    let shown = berth.run(["inspect", "app:1"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("inspect prints JSON");
    assert_eq!(shown[0]["Id"], id.as_str());
    assert_eq!(shown[0]["Config"]["Labels"]["made.by"], "umoci");
    assert_eq!(shown[0]["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
    let short = &id["sha256:".len()..][..8];
    assert_eq!(berth.run(["inspect", "--format", "{{.Id}}", short]).ok(), id);

    let told = berth.run(["history", "--quiet", "app:1"]).ok();
    assert!(told.lines().count() >= 2, "{told}");
}

#[test]
fn removing_the_last_name_removes_the_image() {
    let Some(berth) = loaded() else { return };
    let _ = berth.run(["tag", "app:1", "app:2"]).ok();
    let said = berth.run(["rmi", "app:2"]).ok();
    assert!(said.contains("Untagged:") && !said.contains("Deleted:"), "{said}");
    let usage = berth.run(["system", "df"]).ok();
    assert!(usage.lines().any(|line| line.starts_with("Images")), "{usage}");
    let said = berth.run(["rmi", "app:1"]).ok();
    assert!(said.contains("Deleted: sha256:"), "{said}");
    assert_eq!(berth.run(["images", "-q"]).ok(), "");
    assert_eq!(count(&berth.root().join("layers")), 0);
    let gone = berth.run(["rmi", "app:1"]);
    assert!(
        gone.code == 1 && gone.stderr.contains("no such image: app:1"),
        "{gone:?}"
    );
}

#[test]
fn prune_takes_what_no_container_uses() {
    let Some(berth) = loaded() else { return };
    let _ = berth.run(["image", "prune", "--force"]).ok();
    assert_eq!(
        berth.run(["images", "-q"]).ok().lines().count(),
        1,
        "a named image stays"
    );
    let said = berth.run(["image", "prune", "--all", "--force"]).ok();
    assert!(said.contains("Total reclaimed space:"), "{said}");
    assert_eq!(berth.run(["images", "-q"]).ok(), "");
    assert_eq!(count(&berth.root().join("blobs/sha256")), 0);
}

/// What a list shows of each row, joined by blanks.
#[track_caller]
fn listed(berth: &Berth, flags: &[&str], format: &str) -> Vec<String> {
    let command = [&["images", "--format", format], flags].concat();
    berth.run(command).ok().lines().map(str::to_owned).collect()
}

#[test]
fn images_are_found_by_pattern_age_and_label() {
    if !require(&[Need::Root]) {
        return;
    }
    let berth = Berth::with_busybox();
    let archive = berth.scratch().join("busybox.tar");
    for (name, label) in [
        ("lan:5000/team/app:1", "tier=web"),
        ("lan:5000/team/tool:2", "tier=db"),
    ] {
        let change = format!("LABEL {label}");
        let _ = berth
            .run(["import", "--change", &change, text(&archive), name])
            .ok();
    }
    let names = |flags: &[&str]| listed(&berth, flags, "{{.Repository}}:{{.Tag}}");
    let (app, tool) = ("lan:5000/team/app:1", "lan:5000/team/tool:2");
    for (flags, expected) in [
        (&["busy*"][..], &["busybox:latest"][..]),
        (&["*/*/app"], &[app]),
        (&["--filter", "reference=*/team/*:2"], &[tool]),
        (
            &["--filter", "reference=busybox", "--filter", "reference=*/*/tool"],
            &[tool, "busybox:latest"],
        ),
        (&["--filter", "label=tier"], &[tool, app]),
        (&["--filter", "label=tier=web"], &[app]),
        (&["--filter", "since=busybox"], &[tool, app]),
        (
            &["--filter", "before=lan:5000/team/tool:2"],
            &[app, "busybox:latest"],
        ),
        (&["--filter", "until=0s"], &[tool, app, "busybox:latest"]),
        (&["--filter", "until=1h"], &[]),
        (&["--filter", "dangling=true"], &[]),
        (&["nothing*"], &[]),
    ] {
        assert_eq!(names(flags), expected, "{flags:?}");
    }
    for (filter, word) in [
        ("since=gone", "gone"),
        ("reference=[", "["),
        ("size=1", "size"),
        ("dangling=x", "true or false"),
    ] {
        let refused = berth.run(["images", "--filter", filter]);
        assert!(
            refused.code != 0 && refused.stderr.contains(word),
            "{filter}: {refused:?}"
        );
    }
    let fields = listed(
        &berth,
        &["busybox"],
        "{{.CreatedAt}}|{{.Containers}}|{{.SharedSize}}",
    );
    let (date, rest) = fields[0].split_once(' ').expect("a date and a time");
    assert!(date.len() == 10 && rest.ends_with("|N/A|N/A"), "{fields:?}");
}

#[test]
fn an_image_known_by_digest_alone_keeps_its_repository() {
    let Some(pushed) = pushed(Registry::start, &["one"], "team/app:1") else {
        return;
    };
    let (berth, image) = (pushed.berth, pushed.image);
    let digest = berth.run(["pull", &image]).ok();
    let digest = digest
        .lines()
        .find_map(|line| line.strip_prefix("Digest: "))
        .expect("a digest");
    let repository = image.rsplit_once(':').expect("it has a tag").0;
    let _ = berth.run(["rmi", &image]).ok();
    let pinned = format!("{repository}@{digest}");
    assert_eq!(berth.run(["pull", "-q", &pinned]).ok(), pinned);
    let row = listed(&berth, &[], "{{.Repository}} {{.Tag}} {{.Digest}}");
    assert_eq!(row, [format!("{repository} <none> {digest}")]);
    assert_eq!(listed(&berth, &["--filter", "dangling=true"], "{{.ID}}"), [""; 0]);
    let gone = berth.run(["pull", &format!("{repository}@sha256:{}", "0".repeat(64))]);
    assert!(gone.stderr.contains("team/app@sha256:000"), "{}", gone.stderr);
}

#[test]
fn prune_takes_what_its_filters_leave_to_it() {
    if !require(&[Need::Root]) {
        return;
    }
    let berth = Berth::with_busybox();
    let archive = berth.scratch().join("busybox.tar");
    let _ = berth
        .run(["import", "-c", "LABEL keep=no", text(&archive), "labelled:1"])
        .ok();
    let prune = |filters: &[&str]| {
        let command = [&["image", "prune", "--force", "--all"], filters].concat();
        berth.run(command).ok()
    };
    assert!(!prune(&["--filter", "until=1h"]).contains("Deleted"));
    assert!(!prune(&["--filter", "label=nonesuch"]).contains("Deleted"));
    let said = prune(&["--filter", "label!=keep"]);
    assert!(
        said.starts_with("Deleted Images:\nuntagged: busybox:latest\n"),
        "{said}"
    );
    assert_eq!(listed(&berth, &[], "{{.Repository}}"), ["labelled"]);
    let said = prune(&["--filter", "label=keep=no", "--filter", "until=0s"]);
    assert!(said.contains("untagged: labelled:1"), "{said}");
    let refused = berth.run(["image", "prune", "-f", "--filter", "name=x"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("name"),
        "{refused:?}"
    );
}

#[test]
fn a_repository_is_saved_with_all_of_its_tags() {
    if !require(&[Need::Root]) {
        return;
    }
    let berth = Berth::with_busybox();
    for name in ["lan:5000/app:1", "lan:5000/app:2", "lan:5000/other:1"] {
        let _ = berth.run(["tag", "busybox", name]).ok();
    }
    let file = berth.scratch().join("saved.tar");
    let _ = berth.run(["save", "-o", text(&file), "lan:5000/app"]).ok();
    let loaded = Berth::new().run(["load", "-i", text(&file)]).ok();
    assert_eq!(
        loaded,
        "Loaded image: lan:5000/app:1\nLoaded image: lan:5000/app:2"
    );
}
