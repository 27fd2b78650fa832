//! Many `berth` processes at once on the same store: they wait for one another where they must and nothing is lost.

use std::process::Stdio;

use berth_tests::{Berth, Need, Registry, require};

#[test]
fn only_one_of_many_gets_a_name() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let processes: Vec<_> = (0..8)
        .map(|_| {
            berth
                .command(["create", "--name", "wanted", "busybox", "true"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("start berth")
        })
        .collect();
    let mut made = 0;
    for process in processes {
        let output = process.wait_with_output().expect("wait for berth");
        if output.status.success() {
            made += 1;
        } else {
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(message.contains("wanted"), "the error names the name: {message}");
        }
    }
    assert_eq!(made, 1);
    assert_eq!(
        berth.run(["ps", "-aq"]).ok().lines().count(),
        1,
        "losers leave no record"
    );
}

#[test]
fn containers_created_run_and_removed_by_eight_processes_at_once() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let berth = &berth;
            scope.spawn(move || {
                for round in 0..4 {
                    let word = format!("{worker}-{round}");
                    let printed = berth.run(["run", "--rm", "busybox", "echo", &word]).ok();
                    assert_eq!(printed, word);
                    let name = format!("kept-{word}");
                    let _ = berth
                        .run(["run", "-d", "--name", &name, "busybox", "sleep", "60"])
                        .ok();
                    let _ = berth.run(["rm", "-f", &name]).ok();
                }
            });
        }
    });
    assert_eq!(berth.run(["ps", "-aq"]).ok(), "");
    assert!(berth.mounts_left().is_empty(), "{:?}", berth.mounts_left());
}

#[test]
fn the_same_image_pulled_and_removed_by_many_at_once_stays_whole() {
    if !require(&[
        Need::Root,
        Need::Program("busybox"),
        Need::Program("docker-registry"),
    ]) {
        return;
    }
    let registry = Registry::start();
    let publisher = Berth::with_busybox();
    let reference = format!("{}/test/busybox:latest", registry.host());
    let _ = publisher.run(["tag", "busybox", &reference]).ok();
    let _ = publisher.run(["push", &reference]).ok();

    let berth = Berth::new();
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let (berth, reference) = (&berth, &reference);
            scope.spawn(move || {
                for _ in 0..3 {
                    let pulled = berth.run(["pull", "--quiet", reference]);
                    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
                    if worker % 3 == 0 {
                        berth.run(["rmi", reference]); // may lose against another worker: then there is nothing to remove
                    }
                }
            });
        }
    });
    let _ = berth.run(["pull", "--quiet", &reference]).ok();
    assert_eq!(
        berth.run(["run", "--rm", &reference, "echo", "whole"]).ok(),
        "whole"
    );
}
