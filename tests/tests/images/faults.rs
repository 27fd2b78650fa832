//! Content that is wrong, disks that fill: the message says what and where, nothing is left behind, and the same pull works once the
//! cause is gone.

use std::path::Path;

use berth_tests::{Berth, Disk, Need, Registry, require};

use crate::double::{Content, Double};
use crate::fixture::{count, layout, oci, run, text};

const NEEDS: [Need; 2] = [Need::Root, Need::Program("umoci")];

/// That a pull that failed left nothing but whole blobs, which a prune takes.
#[track_caller]
fn assert_clean(berth: &Berth, what: &str) {
    assert_eq!(count(&berth.root().join("ingest")), 0, "{what}");
    assert_eq!(count(&berth.root().join("layers")), 0, "{what}");
    assert_eq!(berth.run(["images", "--all", "--quiet"]).ok(), "", "{what}");
    let _ = berth.run(["image", "prune", "--force"]).ok();
    assert_eq!(count(&berth.root().join("blobs/sha256")), 0, "{what}");
}

/// That a pull fails as one program's failure does, telling these words.
#[track_caller]
fn assert_refused(berth: &Berth, image: &str, words: &[&str], what: &str) {
    let output = berth.run(["pull", image]);
    assert_eq!(output.code, 1, "{what}: {output:?}");
    assert_eq!(output.stdout, "", "{what}");
    let error = output
        .stderr
        .lines()
        .find(|line| line.starts_with("berth: "))
        .unwrap_or_default();
    for word in words {
        assert!(error.contains(word), "{what}: no {word:?} in {error:?}");
    }
}

#[test]
fn wrong_content_is_named_and_the_right_one_is_pulled_afterwards() {
    if !require(&NEEDS) {
        return;
    }
    let berth = Berth::new();
    let good = Content::of_layout(&layout(berth.scratch(), &["one", "two"]));
    let layer = good.layer(1);
    let changed = |change: &dyn Fn(&mut Content)| {
        let mut content = good.clone();
        change(&mut content);
        content
    };
    let size = good.blobs[&layer].len();
    let announced = (size + 1).to_string();
    let short = (size - 10).to_string();
    // The registry's fault is not in the transfer: digest and size are those of the damaged bytes.
    let mut cut = good.clone();
    let cut_layer = cut.put_layer(1, good.blobs[&layer][..size / 2].to_vec(), berth.scratch());
    let size_text = size.to_string();
    let image = "served/image:1";
    for (what, content, words) in [
        (
            "a manifest over 4 MiB",
            changed(&|c| c.padding = 4 << 20),
            &[image, "4194304"][..],
        ),
        (
            "an unknown type of manifest",
            changed(&|c| {
                c.media_type = "application/vnd.example.v9+json".into();
                c.manifest["mediaType"] = c.media_type.clone().into();
            }),
            &[image, "application/vnd.example.v9+json"],
        ),
        (
            "an unknown type of layer",
            changed(&|c| c.manifest["layers"][1]["mediaType"] = "application/x-rar".into()),
            &[image, &layer, "application/x-rar"],
        ),
        (
            "a byte changed",
            changed(&|c| c.blobs.get_mut(&layer).expect("it is there")[size / 2] ^= 1),
            &[&layer, "corrupt"],
        ),
        (
            "a size that is not the blob's",
            changed(&|c| c.manifest["layers"][1]["size"] = (size + 1).into()),
            &[&layer, &announced, &size_text],
        ),
        (
            "a blob shorter than its size",
            changed(&|c| c.blobs.get_mut(&layer).expect("it is there").truncate(size - 10)),
            &[&layer, &size_text, &short],
        ),
        (
            "a blob the registry does not have",
            changed(&|c| drop(c.blobs.remove(&layer))),
            &[&layer, "not"],
        ),
        ("a layer that ends early", cut, &[&cut_layer, "gzip"]),
    ] {
        let double = Double::new(content);
        assert_refused(&berth, &double.image(), words, what);
        assert_clean(&berth, what);
        double.serve(good.clone());
        assert_eq!(
            berth.run(["pull", "--quiet", &double.image()]).ok(),
            double.image()
        );
        assert_eq!(count(&berth.root().join("layers")), 2, "{what}");
        let _ = berth.run(["rmi", &double.image()]).ok();
    }
}

#[test]
fn a_layer_that_expands_past_a_limit_is_stopped() {
    if !require(&NEEDS) {
        return;
    }
    let berth = Berth::new();
    let mut content = Content::of_layout(&layout(berth.scratch(), &["one"]));
    let (zeros, tar) = (berth.scratch().join("zeros"), berth.scratch().join("bomb.tar"));
    let file = std::fs::File::create(&zeros).expect("create a file");
    file.set_len(400 << 20).expect("a sparse file takes no room");
    let scratch = text(berth.scratch());
    run("tar", &["-C", scratch, "-cf", text(&tar), "zeros"]);
    run("gzip", &[text(&tar)]);
    let bytes = std::fs::read(tar.with_extension("tar.gz")).expect("gzip wrote it");
    assert!(bytes.len() < 1 << 20, "a small blob: {}", bytes.len());
    let bomb = content.put_layer(0, bytes, berth.scratch());
    let double = Double::new(content);
    let words = [bomb.as_str(), "zeros", "compression ratio", "500"];
    assert_refused(&berth, &double.image(), &words, "a bomb");
    assert_clean(&berth, "a bomb");
}

#[test]
fn layers_of_zstd_long_are_taken_and_longer_windows_named() {
    if !require(&[Need::Root, Need::Program("umoci"), Need::Program("zstd")]) {
        return;
    }
    let berth = Berth::new();
    let mut content = Content::of_layout(&layout(berth.scratch(), &["one"]));
    let tar = content.tar(0, berth.scratch());
    content.manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd".into();
    let mut with = |option: &str| {
        let compressed = tar.with_extension("zst");
        // From a pipe zstd does not know the size, so the window is what was asked.
        let (from, to) = (text(&tar), text(&compressed));
        run(
            "sh",
            &[
                "-c",
                &format!("cat {from} | zstd --quiet {option} --stdout >{to}"),
            ],
        );
        let bytes = std::fs::read(compressed).expect("zstd wrote it");
        let digest = content.put_layer(0, bytes, berth.scratch());
        (Double::new(content.clone()), digest)
    };
    let (long, _) = with("--long");
    assert_eq!(berth.run(["pull", "--quiet", &long.image()]).ok(), long.image());
    let _ = berth.run(["rmi", &long.image()]).ok();
    let (longer, digest) = with("--long=28");
    assert_refused(
        &berth,
        &longer.image(),
        &[&digest, "zstd window", "128 MiB"],
        "a long window",
    );
    assert_clean(&berth, "a long window");
}

#[test]
fn a_disk_that_fills_is_named_and_room_is_enough_to_go_on() {
    let needs = [
        Need::Root,
        Need::Program("umoci"),
        Need::Program("docker-registry"),
        Need::Program("skopeo"),
        Need::Program("mkfs.ext4"),
    ];
    if !require(&needs) {
        return;
    }
    let registry = Registry::start();
    let made = Berth::new();
    let source = layout(made.scratch(), &["one"]);
    let noise = made.scratch().join("noise");
    let mut random = std::fs::File::open("/dev/urandom").expect("open the random device");
    let mut file = std::fs::File::create(&noise).expect("create a file");
    std::io::copy(&mut std::io::Read::take(&mut random, 12 << 20), &mut file).expect("write noise");
    let latest = format!("{}:latest", text(&source));
    run(
        "umoci",
        &["insert", "--image", &latest, text(&noise), "/data/noise"],
    );
    let image = registry.push_with_skopeo(&oci(&source), "full:1");
    let hex = run(
        "skopeo",
        &["inspect", "--format", "{{index .Layers 1}}", &oci(&source)],
    );

    // The blob takes 12 MiB and its layer as much: on the smaller disk the blob does not fit, on the larger one the layer.
    for (kind, bytes) in [("tmpfs", 48u64 << 20), ("ext4", 64 << 20)] {
        for room in [6u64 << 20, 16 << 20] {
            let what = format!("{room} bytes left on {kind}");
            let berth = Berth::new();
            let disk = match kind {
                "tmpfs" => Disk::tmpfs(&berth, bytes),
                _ => Disk::ext4(&berth, bytes),
            };
            let Some(_disk) = disk else {
                continue;
            };
            // Its directories exist before the disk fills.
            let _ = berth.run(["images"]).ok();
            let filler = berth.root().join("filler");
            fill(&filler, &berth.root(), room);
            let output = berth.run(["pull", &image]);
            assert_eq!(output.code, 1, "{what}: {output:?}");
            let error = output
                .stderr
                .lines()
                .find(|line| line.starts_with("berth: "))
                .unwrap_or_default();
            assert!(error.contains("No space left on device"), "{what}: {output:?}");
            assert!(
                error.contains(text(&berth.root())) || error.contains(&hex),
                "{what}: neither file nor layer named: {error}"
            );
            assert_eq!(count(&berth.root().join("ingest")), 0, "{what}");
            assert_eq!(count(&berth.root().join("layers")), 0, "{what}");
            assert_eq!(berth.run(["images", "--quiet"]).ok(), "", "{what}");
            std::fs::remove_file(&filler).expect("make room");
            assert_eq!(berth.run(["pull", "--quiet", &image]).ok(), image, "{what}");
            assert_eq!(count(&berth.root().join("layers")), 2, "{what}");
        }
    }
}

/// Writes a file until this much of the filesystem is left.
fn fill(file: &Path, root: &Path, left: u64) {
    let stat = rustix::fs::statvfs(root).expect("ask for the room left");
    let free = stat.f_bavail * stat.f_frsize;
    let file = std::fs::File::create(file).expect("create the filler");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - left).expect("fill the disk");
}
