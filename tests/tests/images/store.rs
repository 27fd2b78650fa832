//! `images`, `inspect`, `history`, `tag`, `rmi`, `image prune` and `system df`.

use berth_tests::{Berth, Need, require};

use crate::fixture::{count, layout, text};

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
