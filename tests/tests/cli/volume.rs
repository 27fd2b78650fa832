//! `volume`.

use serde_json::Value;

use crate::fixture::{berth, inside, remove_all, sleeping};

#[test]
fn volumes_are_made_listed_and_removed() {
    let Some(berth) = berth() else { return };
    assert_eq!(
        berth.run(["volume", "create", "--label", "k=v", "data"]).ok(),
        "data"
    );
    assert_eq!(
        berth.run(["volume", "create", "data"]).ok(),
        "data",
        "docker does not mind"
    );
    let random = berth.run(["volume", "create"]).ok();
    assert_eq!(random.len(), 64, "{random}");
    let list = |flags: &[&str]| berth.run(["volume", "ls", "-q"].iter().chain(flags)).ok();
    assert_eq!(list(&["--filter", "label=k=v"]), "data");
    assert_eq!(list(&["--filter", "name=dat"]), "data");
    let inspected: Value =
        serde_json::from_str(&berth.run(["volume", "inspect", "data"]).ok()).expect("JSON");
    assert_eq!(
        (&inspected[0]["Name"], &inspected[0]["Driver"]),
        (&"data".into(), &"local".into())
    );
    let _ = inside(&berth, &["-v", "data:/d"], "echo kept > /d/file");
    let place = inspected[0]["Mountpoint"].as_str().expect("a path");
    assert_eq!(
        std::fs::read_to_string(format!("{place}/file")).expect("read"),
        "kept\n"
    );
    sleeping(&berth, "user", &["-v", "data:/d"]);
    let busy = berth.run(["volume", "rm", "data"]);
    assert_eq!(busy.code, 1);
    assert!(busy.stderr.contains("data"), "{}", busy.stderr);
    assert_eq!(list(&["--filter", "dangling=false"]), "data");
    let _ = berth.run(["rm", "-fv", "user"]).ok();
    assert!(list(&[]).contains("data"), "-v removes anonymous volumes alone");
    let pruned = berth.run(["volume", "prune", "-f"]).ok();
    assert!(pruned.contains(&random) && !pruned.contains("data\n"), "{pruned}");
    assert_eq!(berth.run(["volume", "rm", "data"]).ok(), "data");
    let gone = berth.run(["volume", "rm", "data"]);
    assert_eq!((gone.code, gone.stderr.contains("data")), (1, true));
    assert_eq!(berth.run(["volume", "rm", "-f", "data"]).code, 0);
    for bad in ["../x", "a/b", "", ".x"] {
        assert_ne!(berth.run(["volume", "create", bad]).code, 0, "{bad:?}");
    }
    let driver = berth.run(["volume", "create", "--driver", "nfs", "x"]);
    assert_eq!(driver.code, 125);
    remove_all(&berth);
}
