//! Processes that die or meet in the store: `kill -9` of `berth pull` at any point, pulls and removals at once.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_tests::{Berth, Need, Output, require};

use crate::double::{Content, Double};
use crate::fixture::{count, layout, run, text};

const POINTS: u32 = 12;
const NOISE_BYTES: u64 = 6 << 20;

/// Where the file `name` of a layer was unpacked.
fn unpacked(berth: &Berth, name: &str) -> Option<PathBuf> {
    let layers = std::fs::read_dir(berth.root().join("layers")).ok()?;
    layers
        .flatten()
        .map(|layer| layer.path().join("fs/data").join(name))
        .find(|path| path.exists())
}

#[test]
fn a_killed_pull_leaves_a_store_that_lists_prunes_and_pulls_again() {
    if !require(&[Need::Root, Need::Program("umoci")]) {
        return;
    }
    let whole = Berth::new();
    let layout = layout(whole.scratch(), &["one"]);
    let noise = whole.scratch().join("noise");
    let mut random = std::fs::File::open("/dev/urandom").expect("open the random device");
    let mut file = std::fs::File::create(&noise).expect("create a file");
    std::io::copy(&mut std::io::Read::take(&mut random, NOISE_BYTES), &mut file).expect("write noise");
    let latest = format!("{}:latest", text(&layout));
    for name in ["/data/first", "/data/second"] {
        run("umoci", &["insert", "--image", &latest, text(&noise), name]);
    }
    let content = Content::of_layout(&layout);
    let double = Double::new(content.clone());
    let image = double.image();
    let start = Instant::now();
    let _ = whole.run(["pull", "--quiet", &image]).ok();
    let duration = start.elapsed();
    let noise = std::fs::read(&noise).expect("the noise is there");

    let mut killed = 0;
    for point in 0..POINTS {
        let berth = Berth::new();
        let after = duration * point / POINTS;
        let what = format!("killed after {after:?}");
        let mut pull = berth
            .command(["pull", "--quiet", &image])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start berth");
        std::thread::sleep(after);
        pull.kill().expect("kill berth");
        killed += u32::from(!pull.wait().expect("wait for berth").success());

        // What has its final name is whole.
        for (digest, bytes) in &content.blobs {
            let blob = berth.root().join("blobs/sha256").join(&digest["sha256:".len()..]);
            if let Ok(found) = std::fs::read(blob) {
                assert!(found == *bytes, "{what}: {digest} is not whole");
            }
        }
        // What is listed is whole too. It may still lack its tag, which comes after its digest.
        for id in berth.run(["images", "--all", "--quiet"]).ok().lines() {
            let _ = berth.run(["inspect", id]).ok();
        }
        // What a killed writer of an image's record leaves; few kills fall on that moment.
        let half = berth.root().join("images/.0123456789abcdef.tmp");
        std::fs::write(half, "{").expect("write half a record");
        // Half of the times what is left is cleared away first, the other times the next pull meets it.
        if point % 2 == 0 {
            let _ = berth.run(["image", "prune", "--all", "--force"]).ok();
            assert_eq!(count(&berth.root().join("blobs/sha256")), 0, "{what}");
            assert_eq!(count(&berth.root().join("layers")), 0, "{what}");
            assert_eq!(count(&berth.root().join("ingest")), 0, "{what}");
            assert_eq!(count(&berth.root().join("images")), 0, "{what}");
        }
        assert_eq!(berth.run(["pull", "--quiet", &image]).ok(), image, "{what}");
        assert_eq!(count(&berth.root().join("ingest")), 0, "{what}");
        assert_eq!(count(&berth.root().join("layers")), 3, "{what}");
        for name in ["first", "second"] {
            let path = unpacked(&berth, name).unwrap_or_else(|| panic!("{what}: {name} is missing"));
            assert!(
                std::fs::read(path).expect("read what was unpacked") == noise,
                "{what}: {name}"
            );
        }
        assert_eq!(berth.run(["images", "--quiet"]).ok().lines().count(), 1, "{what}");
    }
    assert!(killed > 0, "no pull was killed before its end");
}

#[test]
fn pulls_and_removals_at_once_leave_a_whole_store() {
    if !require(&[Need::Root, Need::Program("umoci")]) {
        return;
    }
    const ROUNDS: usize = 40;
    let berth = Berth::new();
    let double = Double::new(Content::of_layout(&layout(
        berth.scratch(),
        &["one", "two", "three"],
    )));
    let image = double.image();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    assert_eq!(berth.run(["pull", "--quiet", &image]).ok(), image);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                let _ = berth.run(["image", "prune", "--all", "--force"]).ok();
            }
        });
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                let removed = berth.run(["rmi", &image]);
                let is_fine = removed.code == 0 || removed.stderr.contains("no such image");
                assert!(is_fine, "{removed:?}");
            }
        });
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                let _ = berth.run(["images"]).ok();
                let _ = berth.run(["system", "df"]).ok();
            }
        });
    });
    assert_eq!(berth.run(["pull", "--quiet", &image]).ok(), image);
    for name in ["one", "two", "three"] {
        let path = unpacked(&berth, name).expect("every layer is there");
        assert_eq!(
            std::fs::read_to_string(path).expect("read what was unpacked"),
            name
        );
    }
    let _ = berth.run(["rmi", &image]).ok();
    let _ = berth.run(["image", "prune", "--all", "--force"]).ok();
    for directory in ["images", "layers", "ingest", "blobs/sha256"] {
        assert_eq!(count(&berth.root().join(directory)), 0, "{directory}");
    }
}

#[test]
fn a_signal_ends_a_pull_that_clears_up_and_an_ignored_one_does_not() {
    if !require(&[Need::Root, Need::Program("umoci")]) {
        return;
    }
    let berth = Berth::new();
    let good = Content::of_layout(&layout(berth.scratch(), &["one", "two"]));
    let mut content = good.clone();
    // The config comes, the layers do not.
    content.stalls = (0..2).map(|index| content.layer(index)).collect();
    let double = Double::new(content);
    let image = double.image();
    for (ignored, sent, name) in [
        ("", vec![libc::SIGINT], "SIGINT"),
        ("", vec![libc::SIGTERM], "SIGTERM"),
        ("trap '' HUP;", vec![libc::SIGHUP, libc::SIGINT], "SIGINT"),
    ] {
        let inner = berth.command(["pull", &image]);
        // Who started the tests may ignore some of them.
        let pull = Command::new("env")
            .args(["--default-signal=HUP,INT,TERM", "sh", "-c"])
            .arg(format!("{ignored} exec \"$0\" \"$@\""))
            .arg(inner.get_program())
            .args(inner.get_args())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start berth");
        let deadline = Instant::now() + Duration::from_secs(20);
        while count(&berth.root().join("layers")) < 2 {
            assert!(Instant::now() < deadline, "the layers never began to come");
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = libc::pid_t::try_from(pull.id()).expect("a pid fits pid_t");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid is not zero");
        for signal in &sent {
            let signal = rustix::process::Signal::from_named_raw(*signal).expect("a signal with a name");
            rustix::process::kill_process(pid, signal).expect("signal berth");
        }
        let output: Output = pull.wait_with_output().expect("wait for berth").into();
        assert_eq!(output.code, 128 + sent.last().expect("one is sent"), "{output:?}");
        assert!(
            output.stderr.contains(&format!("stopped by {name}")),
            "{output:?}"
        );
        assert_eq!(count(&berth.root().join("layers")), 0, "{name}");
        assert_eq!(count(&berth.root().join("ingest")), 0, "{name}");
    }
    double.serve(good);
    assert_eq!(berth.run(["pull", "--quiet", &image]).ok(), image);
}
