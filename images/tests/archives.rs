//! save, load and import against the real store, with skopeo and umoci as peers.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_images::archive::{Format, ImportOptions, LoadFrom, SaveTo};
use berth_images::{Digest, Error, Images, Reference};

fn root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("BERTH_TESTS_STRICT").is_none(), "needs root");
    eprintln!("skipped: needs root");
    false
}

fn rootfs_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in [
        ("bin/sh", &b"#!shell"[..]),
        ("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        builder.append_data(&mut header, name, data).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Place {
    tmp: tempfile::TempDir,
    images: Images,
    id: Digest,
}

fn place() -> Place {
    let tmp = tempfile::tempdir().unwrap();
    let images = Images::open(&tmp.path().join("store")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&rootfs_tar()).unwrap();
    let gz = gz.finish().unwrap();
    let options = ImportOptions {
        changes: vec![r#"CMD ["/bin/sh"]"#.to_owned(), "ENV A=b".to_owned()],
        message: Some("made by hand".to_owned()),
        platform: None,
    };
    let name = Reference::parse("example/imported:1").unwrap();
    let id = images.import(&mut &gz[..], Some(&name), &options).unwrap();
    Place { tmp, images, id }
}

fn other(place: &Place, name: &str) -> Images {
    Images::open(&place.tmp.path().join(name)).unwrap()
}

fn save(place: &Place, format: Format, file: &str) -> PathBuf {
    let path = place.tmp.path().join(file);
    if format == Format::OciDir {
        place
            .images
            .save(&["example/imported:1"], format, SaveTo::Directory(&path))
            .unwrap();
    } else {
        let mut out = File::create(&path).unwrap();
        place
            .images
            .save(&["example/imported:1"], format, SaveTo::Stream(&mut out))
            .unwrap();
    }
    path
}

fn run(program: &str, args: &[&str]) -> bool {
    match Command::new(program).args(args).output() {
        Ok(out) => {
            assert!(
                out.status.success(),
                "{program} {args:?}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
            true
        }
        Err(e) => {
            assert!(std::env::var_os("BERTH_TESTS_STRICT").is_none(), "{program}: {e}");
            eprintln!("skipped: {program}: {e}");
            false
        }
    }
}

#[test]
fn an_imported_image_says_what_was_asked() {
    if !root() {
        return;
    }
    let place = place();
    let image = place.images.resolve("example/imported:1").unwrap();
    assert_eq!(image.id, place.id);
    assert_eq!(
        (
            image.config.config.cmd.as_slice(),
            image.config.config.env.as_slice()
        ),
        (&["/bin/sh".to_owned()][..], &["A=b".to_owned()][..])
    );
    assert_eq!(image.config.history[0].comment.as_deref(), Some("made by hand"));
    assert_eq!(fs::read(image.layers[0].join("bin/sh")).unwrap(), b"#!shell");
    let bad = ImportOptions {
        changes: vec!["RUN x".to_owned()],
        ..ImportOptions::default()
    };
    assert!(matches!(
        place.images.import(&mut &rootfs_tar()[..], None, &bad),
        Err(Error::Archive { .. })
    ));
}

#[test]
fn every_format_comes_back_with_name_and_id() {
    if !root() {
        return;
    }
    let place = place();
    for (i, format) in [Format::DockerArchive, Format::OciArchive, Format::OciDir]
        .into_iter()
        .enumerate()
    {
        let path = save(&place, format, &format!("saved{i}"));
        let again = other(&place, &format!("other{i}"));
        let loaded = again.load(LoadFrom::Path(&path)).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].id, place.id, "{format:?}");
        let image = again.resolve("example/imported:1").unwrap();
        assert_eq!(fs::read(image.layers[0].join("bin/sh")).unwrap(), b"#!shell");
        if format != Format::OciDir {
            // From a pipe, compressed, as `berth load < file.tar.zst` gets it.
            let zst = zstd::encode_all(File::open(&path).unwrap(), 3).unwrap();
            let piped = other(&place, &format!("piped{i}"));
            assert_eq!(piped.load(LoadFrom::Stream(&mut &zst[..])).unwrap(), loaded);
        }
        let left: Vec<_> = fs::read_dir(place.tmp.path().join(format!("other{i}/layers")))
            .unwrap()
            .collect();
        assert_eq!(left.len(), 1, "private directories are gone");
    }
}

#[test]
fn skopeo_and_umoci_read_what_is_saved_and_the_reverse() {
    if !root() {
        return;
    }
    let place = place();
    let at = |name: &str| place.tmp.path().join(name).to_str().unwrap().to_owned();
    save(&place, Format::DockerArchive, "docker.tar");
    save(&place, Format::OciArchive, "oci.tar");
    save(&place, Format::OciDir, "layout");
    let policy = ["--insecure-policy", "copy", "-q"];
    let copy = |from: &str, to: &str| run("skopeo", &[&policy[..], &[from, to]].concat());
    if !copy(
        &format!("docker-archive:{}", at("docker.tar")),
        &format!("oci:{}:x", at("from-docker")),
    ) {
        return;
    }
    copy(
        &format!("oci-archive:{}", at("oci.tar")),
        &format!("dir:{}", at("from-oci")),
    );
    copy(
        &format!("oci:{}", at("layout")),
        &format!("docker-archive:{}:example/back:2", at("back.tar")),
    );
    copy(
        &format!("oci:{}", at("layout")),
        &format!("oci-archive:{}:example/back:3", at("back-oci.tar")),
    );
    for (file, name) in [("back.tar", "example/back:2"), ("back-oci.tar", "example/back:3")] {
        let images = other(&place, &format!("from-{file}"));
        let loaded = images.load(LoadFrom::Path(Path::new(&at(file)))).unwrap();
        assert_eq!(loaded[0].id, place.id, "{file}");
        assert_eq!(images.resolve(name).unwrap().id, place.id);
    }
    run(
        "umoci",
        &[
            "unpack",
            "--image",
            &format!("{}:x", at("from-docker")),
            &at("bundle"),
        ],
    );
    assert_eq!(fs::read(at("bundle") + "/rootfs/bin/sh").unwrap(), b"#!shell");
}

#[test]
fn damaged_archives_are_refused_and_leave_no_image() {
    if !root() {
        return;
    }
    let place = place();
    let layout = save(&place, Format::OciDir, "layout");
    let blobs = layout.join("blobs/sha256");
    let (config, layer) = {
        let image = place.images.resolve("example/imported:1").unwrap();
        (
            blobs.join(image.id.hex()),
            blobs.join(image.manifest.layers[0].digest.hex()),
        )
    };
    let index = layout.join("index.json");
    type Damage<'a> = (&'a str, &'a Path, Box<dyn Fn(&Path)>);
    let append = |p: &Path| {
        File::options()
            .append(true)
            .open(p)
            .unwrap()
            .write_all(b"x")
            .unwrap()
    };
    let damages: Vec<Damage<'_>> = vec![
        ("layer too long", &layer, Box::new(append)),
        ("config too long", &config, Box::new(append)),
        (
            "layer corrupt",
            &layer,
            Box::new(|p| {
                let mut bytes = fs::read(p).unwrap();
                bytes[20] ^= 1;
                fs::write(p, bytes).unwrap();
            }),
        ),
        ("layer missing", &layer, Box::new(|p| fs::remove_file(p).unwrap())),
        (
            "layer is a link outside",
            &layer,
            Box::new(|p| {
                fs::remove_file(p).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", p).unwrap();
            }),
        ),
        (
            "layer is a fifo",
            &layer,
            Box::new(|p| {
                fs::remove_file(p).unwrap();
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(rustix::fs::CWD, p, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }),
        ),
        // CVE-2023-25153.
        (
            "index of gigabytes",
            &index,
            Box::new(|p| {
                File::options()
                    .write(true)
                    .open(p)
                    .unwrap()
                    .set_len(3 << 30)
                    .unwrap()
            }),
        ),
        (
            "name with an escape",
            &index,
            Box::new(|p| {
                let text = fs::read_to_string(p)
                    .unwrap()
                    .replace("docker.io/example/imported:1", "../../etc:1");
                fs::write(p, text).unwrap();
            }),
        ),
    ];
    for (what, path, damage) in damages {
        let kept = fs::read(path).unwrap();
        damage(path);
        let images = other(&place, "damaged");
        let result = images.load(LoadFrom::Path(&layout));
        assert!(result.is_err(), "{what}: {result:?}");
        assert!(images.list().unwrap().is_empty(), "{what}");
        fs::remove_file(path).ok();
        fs::write(path, kept).unwrap();
        fs::remove_dir_all(place.tmp.path().join("damaged")).unwrap();
    }
    let images = other(&place, "empty");
    assert!(matches!(
        images.load(LoadFrom::Stream(&mut &rootfs_tar()[..])),
        Err(Error::NoArchive)
    ));
}
