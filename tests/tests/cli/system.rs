//! `version`, `info`, `system` and the groups of verbs.

use serde_json::Value;

use crate::fixture::{berth, remove_all, sleeping};

#[test]
fn version_and_info_tell_about_this_host() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &[]);
    let _ = berth.run(["create", "--name", "made", "busybox", "true"]).ok();
    let version = berth.run(["version", "--format", "{{.Client.Version}}"]).ok();
    assert!(berth.run(["--version"]).ok().ends_with(&version), "{version}");
    let info: Value = serde_json::from_str(&berth.run(["info", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(
        (&info["Containers"], &info["ContainersRunning"], &info["Images"]),
        (&2.into(), &1.into(), &1.into())
    );
    remove_all(&berth);
}

#[test]
fn groups_hold_the_same_verbs() {
    let Some(berth) = berth() else { return };
    let id = sleeping(&berth, "box", &[]);
    for verb in ["ls", "list", "ps"] {
        assert_eq!(
            berth.run(["container", verb, "-q", "--no-trunc"]).ok(),
            id,
            "{verb}"
        );
    }
    assert_eq!(berth.run(["container", "exec", "box", "echo", "x"]).ok(), "x");
    assert_eq!(
        berth.run(["container", "inspect", "-f", "{{.Id}}", "box"]).ok(),
        id
    );
    assert_eq!(
        berth.run(["image", "ls", "--format", "{{.Repository}}"]).ok(),
        "busybox"
    );
    assert_eq!(berth.run(["container", "rm", "-f", "box"]).ok(), "box");
    let unknown = berth.run(["container", "fly"]);
    assert_eq!(unknown.code, 125);
    assert!(unknown.stderr.contains("fly"), "{}", unknown.stderr);
    remove_all(&berth);
}

#[test]
fn prune_takes_what_its_filters_leave_to_it() {
    let Some(berth) = berth() else { return };
    for (name, label) in [("one", "tier=web"), ("two", "tier=db")] {
        let _ = berth
            .run(["create", "--name", name, "--label", label, "busybox", "true"])
            .ok();
        let _ = berth.run(["volume", "create", "--label", label, name]).ok();
        let _ = berth.run(["network", "create", "--label", label, name]).ok();
    }
    let left = |kind: &str| {
        let list: &[&str] = match kind {
            "container" => &["ps", "-a", "--format", "{{.Names}}"],
            "volume" => &["volume", "ls", "-q"],
            _ => &["network", "ls", "--filter", "name=o", "--format", "{{.Name}}"],
        };
        let listed = berth.run(list).ok();
        listed
            .lines()
            .filter(|name| matches!(*name, "one" | "two"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for kind in ["container", "volume", "network"] {
        let mut prune = vec![kind, "prune", "--force"];
        if kind == "volume" {
            prune.push("--all");
        }
        let with = |filter| [&prune[..], &["--filter", filter]].concat();
        let _ = berth.run(with("label=nonesuch")).ok();
        assert_eq!(left(kind).len(), 2, "{kind}");
        let said = berth.run(with("label!=tier=web")).ok();
        assert!(said.starts_with("Deleted "), "{said}");
        assert_eq!(left(kind), ["one"], "{kind}");
        let refused = berth.run(with("size=1"));
        assert!(
            refused.code != 0 && refused.stderr.contains("size"),
            "{refused:?}"
        );
    }
    remove_all(&berth);
}

#[test]
fn prune_leaves_what_is_in_use() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &["-v", "used:/v"]);
    let _ = berth.run(["create", "--name", "made", "busybox", "true"]).ok();
    let _ = berth.run(["network", "create", "idle"]).ok();
    let df = berth.run(["system", "df"]).ok();
    for want in ["Images", "Containers", "Volumes"] {
        assert!(df.contains(want), "{df}");
    }
    let kept = berth.run(["system", "prune", "-f", "--filter", "until=1h"]).ok();
    assert_eq!(kept, "Total reclaimed space: 0B", "all of it is younger");
    let pruned = berth.run(["system", "prune", "-f"]).ok();
    assert!(
        pruned.starts_with("Deleted Containers:\n") && pruned.contains("\nDeleted Networks:\nidle\n"),
        "{pruned}"
    );
    assert!(pruned.contains("reclaimed"), "{pruned}");
    assert_eq!(berth.run(["ps", "-a", "--format", "{{.Names}}"]).ok(), "box");
    assert_eq!(berth.run(["volume", "ls", "-q"]).ok(), "used");
    assert!(
        !berth
            .run(["network", "ls", "--format", "{{.Name}}"])
            .ok()
            .contains("idle")
    );
    assert_eq!(
        berth.run(["images", "-q"]).ok().lines().count(),
        1,
        "its image is in use"
    );
    remove_all(&berth);
}
