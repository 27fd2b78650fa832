//! Against Debian's docker-registry, with skopeo on the other side.

mod support;

use berth_images::gc::Use;
use berth_images::progress::Quiet;
use berth_images::{Digest, Error, Platform, Policy, PullOptions, Reference};
use support::real::{Real, skopeo};
use support::{Recorder, TestImage, TestStore, chain, noise};

fn image() -> TestImage {
    TestImage::new(&[
        ("a", noise(300_000, 1)),
        ("b", noise(200_000, 2)),
        ("c", noise(10, 3)),
    ])
}

fn nobody() -> Vec<Use> {
    Vec::new()
}

fn reference(real: &Real, name: &str) -> Reference {
    Reference::parse(&format!("{}/{name}", real.host())).unwrap()
}

/// Puts the image on the registry with skopeo.
fn seed(image: &TestImage, target: &Reference, more: &[&str]) {
    let layout = tempfile::tempdir().unwrap();
    image.write_layout(layout.path());
    let source = format!("oci:{}:latest", layout.path().display());
    let target = format!("docker://{target}");
    let mut args = vec!["copy", "-q", "--dest-tls-verify=false"];
    args.extend(more);
    args.extend([source.as_str(), target.as_str()]);
    skopeo(&args);
}

#[test]
fn what_skopeo_pushed_is_pulled_and_what_is_pushed_skopeo_reads() {
    if !support::can_run(&["docker-registry", "skopeo"]) {
        return;
    }
    let (real, image, store) = (Real::start(false), image(), TestStore::new());
    let source = reference(&real, "in/image:1");
    seed(&image, &source, &[]);
    let pulled = store.images.pull(&source, PullOptions::default()).unwrap();
    assert_eq!(pulled.id, Digest::of(&image.config));
    assert_eq!(
        std::fs::read(pulled.layers[1].join("b")).unwrap(),
        noise(200_000, 2)
    );

    // Other repository of the same registry: every blob is mounted, none is sent.
    let target = reference(&real, "out/image:2");
    store
        .images
        .tag(&source.to_string(), &target.to_string())
        .unwrap();
    let recorder = Recorder::default();
    let digest = store.images.push(&target, &recorder).unwrap();
    assert_eq!(digest, Digest::of(&image.manifest));
    assert_eq!(recorder.count("mounted"), 4, "{:?}", recorder.0.lock().unwrap());
    let raw = skopeo(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{target}"),
    ]);
    assert_eq!(
        raw.as_bytes(),
        image.manifest,
        "the manifest is there byte for byte"
    );

    // A registry that has nothing: every blob is sent, and skopeo verifies all of them by copying.
    let other = Real::start(false);
    let fresh = reference(&other, "x:1");
    store.images.tag(&source.to_string(), &fresh.to_string()).unwrap();
    store.images.push(&fresh, &Quiet).unwrap();
    let layout = tempfile::tempdir().unwrap();
    let to = format!("oci:{}:t", layout.path().display());
    skopeo(&[
        "copy",
        "-q",
        "--src-tls-verify=false",
        &format!("docker://{fresh}"),
        &to,
    ]);
    for bytes in image.layers.iter().chain([&image.config]) {
        let copied = layout.path().join("blobs/sha256").join(Digest::of(bytes).hex());
        assert_eq!(&std::fs::read(copied).unwrap(), bytes);
    }
    let again = Recorder::default();
    store.images.push(&fresh, &again).unwrap();
    assert_eq!(again.count("exists"), 4);
}

#[test]
fn docker_schema_2_and_zstd_are_pulled() {
    if !support::can_run(&["docker-registry", "skopeo"]) {
        return;
    }
    let (real, image) = (Real::start(false), image());
    let schema2 = reference(&real, "s2:1");
    seed(&image, &schema2, &["--format", "v2s2"]);
    let store = TestStore::new();
    let pulled = store.images.pull(&schema2, PullOptions::default()).unwrap();
    assert!(pulled.manifest.media_type.unwrap().contains("docker"));
    assert_eq!(std::fs::read(pulled.layers[2].join("c")).unwrap(), noise(10, 3));
    let zstd = reference(&real, "z:1");
    seed(&image.zstd(), &zstd, &[]);
    let store = TestStore::new();
    let pulled = store.images.pull(&zstd, PullOptions::default()).unwrap();
    assert_eq!(
        std::fs::read(pulled.layers[0].join("a")).unwrap(),
        noise(300_000, 1)
    );
}

#[test]
fn login_proves_itself_before_it_is_kept() {
    if !support::can_run(&["docker-registry", "skopeo"]) {
        return;
    }
    let (real, image, store) = (Real::start(true), image(), TestStore::new());
    let name = reference(&real, "private:1");
    seed(&image, &name, &["--dest-creds", "me:s3cret"]);
    let error = store.images.pull(&name, PullOptions::default()).unwrap_err();
    assert!(chain(&error).contains("none are configured"), "{}", chain(&error));
    let error = store.images.login(&real.host(), "me", "wrong").unwrap_err();
    assert!(chain(&error).contains("refuses"), "{}", chain(&error));
    assert!(!store.dir.path().join("docker/config.json").exists());
    store.images.login(&real.host(), "me", "s3cret").unwrap();
    store.images.pull(&name, PullOptions::default()).unwrap();
    let pushed = reference(&real, "mine:1");
    store.images.tag(&name.to_string(), &pushed.to_string()).unwrap();
    store.images.push(&pushed, &Quiet).unwrap();
    assert!(store.images.logout(&real.host()).unwrap());
    assert!(store.images.pull(&pushed, PullOptions::default()).is_err());
}

#[test]
fn names_come_and_go_and_the_content_with_the_last() {
    if !support::can_run(&["docker-registry", "skopeo"]) {
        return;
    }
    let (real, image, store) = (Real::start(false), image(), TestStore::new());
    let name = reference(&real, "x:1");
    seed(&image, &name, &[]);
    let images = &store.images;
    images.pull(&name, PullOptions::default()).unwrap();
    let id = Digest::of(&image.config);
    images.tag(&name.to_string(), "local:tag").unwrap();

    assert_eq!(images.resolve(id.short()).unwrap().id, id);
    assert_eq!(images.resolve(id.as_str()).unwrap().id, id);
    assert!(matches!(images.resolve("absent"), Err(Error::NotFound(_))));
    let list = images.list().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].names, [name.to_string(), "local:tag".into()]);
    assert_eq!(list[0].repo_digests.len(), 1);
    assert_eq!(list[0].size, 500_010);
    // An image at hand holds its layers against removal.
    drop(list);
    let shown = images.inspect("local:tag").unwrap();
    assert_eq!(shown["Id"], id.as_str());
    assert_eq!(shown["Config"]["Env"][0], "A=b");
    assert_eq!(shown["RepoTags"].as_array().unwrap().len(), 2);
    let history = images.history("local:tag").unwrap();
    assert_eq!(
        (history.len(), history[0].created_by.as_str(), history[0].size),
        (3, "add c", 10)
    );

    // By id with names in two repositories: refused.
    assert!(matches!(
        images.remove(id.short(), false, &nobody),
        Err(Error::SeveralNames(_))
    ));
    let removed = images.remove(&name.to_string(), false, &nobody).unwrap();
    assert_eq!(
        removed.untagged.len(),
        2,
        "the tag and the repository's digest: {removed:?}"
    );
    assert_eq!(images.resolve("local:tag").unwrap().id, id);

    // Used by a container: refused, or with force kept without a name.
    let used = || {
        vec![Use {
            image: Digest::of(&image.config),
            container: "web".into(),
            is_running: false,
        }]
    };
    assert!(
        matches!(images.remove("local:tag", false, &used), Err(Error::InUse { container, .. }) if container == "web")
    );
    images.remove("local:tag", true, &used).unwrap();
    assert_eq!(images.list().unwrap()[0].names, Vec::<String>::new());
    assert_eq!(images.prune(true, &|_| true, &used).unwrap().deleted, []);
    assert!(images.df(&used).unwrap().reclaimable == 0 && images.df(&nobody).unwrap().reclaimable > 900_000);

    let pruned = images.prune(false, &|_| true, &nobody).unwrap();
    assert!(pruned.reclaimed > 900_000, "{pruned:?}");
    assert_eq!(store.layer_count(), 0);
    assert_eq!(images.df(&nobody).unwrap().blobs, 0);
    assert!(!store.has_blob(&image.layers[0]));
}

#[test]
fn policies_and_platforms() {
    if !support::can_run(&["docker-registry", "skopeo"]) {
        return;
    }
    let (real, image, store) = (Real::start(false), image(), TestStore::new());
    let name = reference(&real, "x:1");
    seed(&image, &name, &[]);
    let with = |policy| PullOptions {
        policy,
        ..PullOptions::default()
    };
    assert!(matches!(
        store.images.pull(&name, with(Policy::Never)),
        Err(Error::NotPulled(_))
    ));
    let arm = Platform::parse("linux/arm64").unwrap();
    let options = PullOptions {
        platform: Some(&arm),
        ..PullOptions::default()
    };
    assert!(matches!(
        store.images.pull(&name, options),
        Err(Error::NoPlatform { .. })
    ));
    store.images.pull(&name, with(Policy::Missing)).unwrap();
    drop(real);
    store.images.pull(&name, with(Policy::Missing)).unwrap();
    store.images.pull(&name, with(Policy::Never)).unwrap();
    assert!(store.images.pull(&name, with(Policy::Always)).is_err());
}

#[test]
fn no_thread_outlives_a_pull() {
    if !support::can_run(&["docker-registry", "skopeo"]) {
        return;
    }
    // Threads of other tests in this process come and go, so the threads are told apart by name.
    let (real, image, store) = (Real::start(false), image(), TestStore::new());
    let name = reference(&real, "x:1");
    seed(&image, &name, &[]);
    store.images.pull(&name, PullOptions::default()).unwrap();
    let mine = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_counts_its_threads",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("TEST_PULL_NAME", name.to_string())
        .env("TEST_PULL_ROOT", store.dir.path().join("fresh"))
        .output()
        .unwrap();
    assert!(mine.status.success(), "{}", String::from_utf8_lossy(&mine.stderr));
}

#[test]
fn child_that_counts_its_threads() {
    let (Some(name), Some(root)) = (
        std::env::var_os("TEST_PULL_NAME"),
        std::env::var_os("TEST_PULL_ROOT"),
    ) else {
        return;
    };
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let images = berth_images::Images::open(std::path::Path::new(&root)).unwrap();
    let before = threads();
    let reference = Reference::parse(name.to_str().unwrap()).unwrap();
    let pulled = images.pull(&reference, PullOptions::default()).unwrap();
    assert_eq!(pulled.layers.len(), 3);
    assert_eq!(threads(), before);
}

#[test]
fn https_trusts_the_system_certs_d_or_the_users_word_and_nothing_else() {
    if !support::can_run(&["docker-registry", "skopeo", "openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ((real, cert), image) = (Real::start_tls(dir.path()), image());
    let name = reference(&real, "x:1");
    seed(&image, &name, &[]);

    let store = TestStore::new();
    let error = store.images.pull(&name, PullOptions::default()).unwrap_err();
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));

    let own = store.dir.path().join("certs.d").join(real.host());
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(&cert, own.join("ca.crt")).unwrap();
    store.images.pull(&name, PullOptions::default()).unwrap();

    let insecure = TestStore::with(|c| c.insecure = vec![real.host()]);
    insecure.images.pull(&name, PullOptions::default()).unwrap();
}
