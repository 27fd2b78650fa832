//! `network connect` and `disconnect`: containers that run and that do not, and what their next start finds.

use std::process::Stdio;
use std::time::Duration;

use berth_tests::Berth;

use crate::fixture::{berth, remove_all, sleeping};

/// The names of a container's networks, as `inspect` has them.
#[track_caller]
fn networks(berth: &Berth, name: &str) -> String {
    let template = "{{range $name, $place := .NetworkSettings.Networks}}{{$name}} {{end}}";
    berth.run(["inspect", "-f", template, name]).ok()
}

/// The links a container sees, but for the loopback one.
#[track_caller]
fn links(berth: &Berth, name: &str) -> usize {
    let seen = berth.run(["exec", name, "ip", "-o", "link"]).ok();
    seen.lines().filter(|line| line.contains(": eth")).count()
}

#[track_caller]
fn refused(berth: &Berth, arguments: &[&str], words: &[&str]) {
    let ran = berth.run(arguments);
    assert_eq!(ran.code, 1, "{arguments:?}: {}", ran.stdout);
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "{arguments:?}: no {word:?} in {}",
            ran.stderr
        );
    }
}

fn with_networks() -> Option<Berth> {
    let berth = berth()?;
    for (name, subnet) in [("front", "10.99.1.0/24"), ("back", "10.99.2.0/24")] {
        let _ = berth.run(["network", "create", "--subnet", subnet, name]).ok();
    }
    Some(berth)
}

#[test]
fn what_is_joined_while_it_runs_is_there_after_a_restart() {
    let Some(berth) = with_networks() else { return };
    sleeping(&berth, "box", &["--network", "front"]);
    let join = [
        "network",
        "connect",
        "--ip",
        "10.99.2.77",
        "--alias",
        "other",
        "back",
        "box",
    ];
    let _ = berth.run(join).ok();
    for restarted in [false, true] {
        if restarted {
            let _ = berth.run(["restart", "-t", "0", "box"]).ok();
        }
        assert_eq!(networks(&berth, "box"), "back front");
        assert_eq!(links(&berth, "box"), 2, "restarted: {restarted}");
        let template =
            "{{.NetworkSettings.Networks.back.IPAddress}} {{.NetworkSettings.Networks.back.Aliases}}";
        assert_eq!(
            berth.run(["inspect", "-f", template, "box"]).ok(),
            "10.99.2.77 [other]"
        );
        let found = berth.run([
            "run",
            "--rm",
            "--network",
            "back",
            "busybox",
            "ping",
            "-c1",
            "-W1",
            "other",
        ]);
        assert!(found.ok().contains("10.99.2.77"));
    }
    assert_eq!(berth.run(["ps", "--format", "{{.Networks}}"]).ok(), "front,back");
    assert_eq!(
        berth
            .run(["ps", "-q", "--filter", "network=back"])
            .ok()
            .lines()
            .count(),
        1
    );
    let template = "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}";
    let members = berth.run(["network", "inspect", "-f", template, "back"]).ok();
    assert_eq!(members, "box 10.99.2.77/24");

    let _ = berth.run(["network", "disconnect", "front", "box"]).ok();
    let _ = berth.run(["restart", "-t", "0", "box"]).ok();
    assert_eq!(
        (networks(&berth, "box").as_str(), links(&berth, "box")),
        ("back", 1)
    );
    let events = [
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        "type=network",
    ];
    let events = berth
        .run(
            events
                .iter()
                .chain(&["--format", "{{.Action}} {{.Actor.Attributes.name}}"]),
        )
        .ok();
    assert!(
        events.contains("connect back\n") && events.ends_with("disconnect front"),
        "{events}"
    );
    remove_all(&berth);
}

#[test]
fn who_does_not_run_is_on_its_networks_when_it_starts() {
    let Some(berth) = with_networks() else { return };
    let _ = berth
        .run(["create", "--name", "box", "busybox", "sleep", "600"])
        .ok();
    let _ = berth.run(["network", "connect", "front", "box"]).ok();
    let _ = berth.run(["network", "connect", "back", "box"]).ok();
    let _ = berth.run(["network", "disconnect", "bridge", "box"]).ok();
    assert_eq!(networks(&berth, "box"), "back front");
    let _ = berth.run(["start", "box"]).ok();
    assert_eq!(
        (networks(&berth, "box").as_str(), links(&berth, "box")),
        ("back front", 2)
    );

    // Off all of them it is alone, and comes back.
    let _ = berth.run(["stop", "-t", "0", "box"]).ok();
    for network in ["front", "back"] {
        let _ = berth.run(["network", "disconnect", network, "box"]).ok();
    }
    let _ = berth.run(["start", "box"]).ok();
    assert_eq!((networks(&berth, "box").as_str(), links(&berth, "box")), ("", 0));
    sleeping(&berth, "neighbour", &[]);
    let lookup = ["exec", "box", "nslookup", "neighbour"];
    assert_ne!(berth.run(lookup).code, 0, "it knows nobody");
    let _ = berth.run(["network", "connect", "bridge", "box"]).ok();
    assert_eq!(
        (networks(&berth, "box").as_str(), links(&berth, "box")),
        ("bridge", 1)
    );
    // Its name server was there before the network.
    let _ = berth.run(lookup).ok();

    let _ = berth.run(["stop", "-t", "0", "box"]).ok();
    let _ = berth.run(["network", "connect", "back", "box"]).ok();
    let _ = berth.run(["network", "rm", "back"]).ok();
    refused(&berth, &["start", "box"], &["network back does not exist"]);
    remove_all(&berth);
}

#[test]
fn a_change_that_was_killed_is_finished_by_the_next() {
    let Some(berth) = with_networks() else { return };
    sleeping(&berth, "box", &["--network", "front"]);
    for round in 0..24u64 {
        // Each begins where the one before has ended.
        for (killed, next, expected) in [
            ("connect", "disconnect", 1),
            ("connect", "connect", 2),
            ("disconnect", "connect", 2),
            ("disconnect", "disconnect", 1),
        ] {
            let what = format!("round {round}: {killed} killed, then {next}");
            let mut process = berth
                .command(["network", killed, "back", "box"])
                .stderr(Stdio::null())
                .spawn()
                .expect("start berth");
            std::thread::sleep(Duration::from_millis(round));
            process.kill().expect("kill berth");
            process.wait().expect("wait for berth");
            let ran = berth.run(["network", next, "back", "box"]);
            // It had not begun, or was done.
            let nothing_to_do = ["attached to network back already", "not attached to network back"]
                .iter()
                .any(|words| ran.stderr.contains(words));
            assert!(ran.code == 0 || nothing_to_do, "{what}: {}", ran.stderr);
            assert_eq!(links(&berth, "box"), expected, "{what}");
            let names = ["", "front", "back front"][expected];
            assert_eq!(networks(&berth, "box"), names, "{what}");
            if expected == 2 {
                let _ = berth.run(["exec", "box", "ping", "-c1", "10.99.2.1"]).ok();
            }
        }
    }
    remove_all(&berth);
}

#[test]
fn what_cannot_be_joined_or_left_is_told_and_changes_nothing() {
    let Some(berth) = with_networks() else { return };
    sleeping(&berth, "box", &["--network", "front"]);
    sleeping(&berth, "alone", &["--network", "none"]);
    sleeping(&berth, "guest", &["--network", "container:box"]);
    for (arguments, words) in [
        (
            &["connect", "front", "box"][..],
            &["attached to network front already"][..],
        ),
        (
            &["connect", "host", "box"],
            &["network host", "hint:", "--network host"],
        ),
        (&["connect", "gone", "box"], &["network gone does not exist"]),
        (&["connect", "back", "nobody"], &["no such container: nobody"]),
        (&["connect", "back", "alone"], &["alone", "--network none"]),
        (&["connect", "back", "guest"], &["guest", "container box"]),
        (
            &["connect", "--ip", "10.99.1.9", "back", "box"],
            &["10.99.1.9", "10.99.2.0/24"],
        ),
        (&["connect", "--alias", "no good", "back", "box"], &["no good"]),
        (&["disconnect", "back", "box"], &["not attached to network back"]),
        (&["disconnect", "back", "nobody"], &["no such container: nobody"]),
    ] {
        refused(&berth, &[&["network"], arguments].concat(), words);
    }
    assert_eq!(
        (networks(&berth, "box").as_str(), links(&berth, "box")),
        ("front", 1)
    );
    // Nor does its next start find them.
    let recorded = ["ps", "--filter", "name=box", "--format", "{{.Networks}}"];
    assert_eq!(berth.run(recorded).ok(), "front");
    for container in ["box", "nobody"] {
        let _ = berth
            .run(["network", "disconnect", "--force", "back", container])
            .ok();
    }
    remove_all(&berth);
}

#[test]
fn addresses_come_out_of_the_range_and_networks_are_found_by_kind() {
    let Some(berth) = berth() else { return };
    let create = [
        "network",
        "create",
        "--subnet",
        "10.99.3.0/24",
        "--ip-range",
        "10.99.3.128/30",
        "ranged",
    ];
    let id = berth.run(create).ok();
    let mut addresses = Vec::new();
    for name in ["one", "two"] {
        // By its id, too.
        sleeping(&berth, name, &["--network", &id[..12]]);
        let template = "{{.NetworkSettings.Networks.ranged.IPAddress}}";
        addresses.push(berth.run(["inspect", "-f", template, name]).ok());
    }
    assert_eq!(addresses, ["10.99.3.128", "10.99.3.129"]);
    let list = |filter: &str| {
        berth
            .run(["network", "ls", "--filter", filter, "--format", "{{.Name}}"])
            .ok()
    };
    assert_eq!(list("type=custom"), "ranged");
    assert_eq!(list("type=builtin"), "bridge\nhost\nnone");
    assert_eq!(list("dangling=true"), "");
    let _ = berth.run(["network", "create", "idle"]).ok();
    assert_eq!(list("dangling=true"), "idle");
    refused(
        &berth,
        &[
            "network",
            "create",
            "--subnet",
            "10.99.4.0/24",
            "--ip-range",
            "10.99.5.0/24",
            "x",
        ],
        &["10.99.5.0/24", "not part of the subnet"],
    );
    let _ = berth.run(["network", "rm", "--force", "gone", "idle"]).ok();
    remove_all(&berth);
}
