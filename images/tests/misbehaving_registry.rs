//! Pulls from a registry that does everything a registry must not. Whatever it does, the error says what and where, and the
//! store holds nothing unverified.

mod support;

use berth_images::{Digest, Error, PullOptions, registry};
use support::double::{Double, Reply};
use support::{Recorder, TestImage, TestStore, chain, noise};

fn image() -> TestImage {
    TestImage::new(&[("a", noise(300_000, 1)), ("b", noise(200_000, 2))])
}

fn blob_path(bytes: &[u8]) -> String {
    format!("/blobs/{}", Digest::of(bytes))
}

/// Pulls, expecting failure; checks that nothing is left and returns the error with its causes.
fn fails(store: &TestStore, double: &Double) -> String {
    let error = store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap_err();
    assert_eq!(store.leftovers(), Vec::<String>::new());
    assert!(matches!(
        store.images.resolve(&double.reference().to_string()),
        Err(Error::NotFound(_))
    ));
    chain(&error)
}

macro_rules! require {
    () => {
        if !support::can_run(&[]) {
            return;
        }
    };
}

#[test]
fn a_good_registry_serves_and_a_second_pull_fetches_no_blob() {
    require!();
    let image = image();
    let double = Double::new(&image, |_| Reply::Serve);
    let store = TestStore::new();
    let pulled = store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
    assert_eq!(pulled.id, Digest::of(&image.config));
    assert_eq!(pulled.manifest_digest, Digest::of(&image.manifest));
    assert_eq!(
        std::fs::read(pulled.layers[0].join("a")).unwrap(),
        noise(300_000, 1)
    );
    assert_eq!(
        std::fs::read(pulled.layers[1].join("b")).unwrap(),
        noise(200_000, 2)
    );
    assert_eq!(pulled.config.config.env, ["A=b"]);
    let before = double.asked("/blobs/");
    store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
    assert_eq!(double.asked("/blobs/"), before);
    assert_eq!(store.leftovers(), Vec::<String>::new());
}

#[test]
fn a_dropped_connection_resumes_with_range() {
    require!();
    let image = image();
    let path = blob_path(&image.layers[0]);
    let double = Double::new(&image, move |r| match r.nth {
        0 if r.path.contains(&path) => Reply::Drop(100_000),
        _ => Reply::Serve,
    });
    let (store, recorder) = (TestStore::new(), Recorder::default());
    let options = PullOptions {
        progress: &recorder,
        ..PullOptions::default()
    };
    store.images.pull(&double.reference(), options).unwrap();
    let asked = double.requests();
    let ranges: Vec<&String> = asked.iter().filter_map(|r| r.headers.get("range")).collect();
    assert_eq!(ranges.len(), 1);
    assert!(
        ranges[0].starts_with("bytes=") && ranges[0] != "bytes=0-",
        "{ranges:?}"
    );
    assert_eq!(recorder.count("retrying"), 1);
}

#[test]
fn a_server_that_ignores_range_is_read_anew() {
    require!();
    let image = image();
    let path = blob_path(&image.layers[0]);
    let double = Double::new(&image, move |r| match r.nth {
        0 if r.path.contains(&path) => Reply::Drop(100_000),
        _ => Reply::ServeAll,
    });
    TestStore::new()
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
}

#[test]
fn a_stall_ends_and_resumes() {
    require!();
    let image = image();
    let path = blob_path(&image.layers[1]);
    let double = Double::new(&image, move |r| match r.nth {
        0 if r.path.contains(&path) => Reply::Stall(50_000),
        _ => Reply::Serve,
    });
    TestStore::new()
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
    assert_eq!(
        double
            .requests()
            .iter()
            .filter(|r| r.headers.contains_key("range"))
            .count(),
        1
    );
}

#[test]
fn an_endless_stall_is_an_error() {
    require!();
    let double = Double::new(&image(), |r| match r.path.contains("/blobs/") {
        true => Reply::Stall(10),
        false => Reply::Serve,
    });
    let error = fails(&TestStore::new(), &double);
    assert!(error.contains("sent nothing for"), "{error}");
}

#[test]
fn overload_answers_are_waited_out() {
    require!();
    let double = Double::new(&image(), |r| match (r.nth, r.path.contains("/manifests/")) {
        (0, true) => Reply::Answer(503, Vec::new(), Vec::new()),
        (1, true) => Reply::Answer(429, vec![("Retry-After", "0".into())], Vec::new()),
        (0, false) => Reply::Answer(500, Vec::new(), Vec::new()),
        _ => Reply::Serve,
    });
    TestStore::new()
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
}

#[test]
fn a_registry_that_stays_broken_is_named_with_its_own_words() {
    require!();
    let body = br#"{"errors":[{"code":"UNAVAILABLE","message":"out of \u001b[31mdisks"}]}"#;
    let double = Double::new(&image(), |_| Reply::Answer(503, Vec::new(), body.to_vec()));
    let error = fails(&TestStore::new(), &double);
    assert!(
        error.contains("503") && error.contains("out of ") && error.contains("/manifests/t"),
        "{error}"
    );
    assert!(
        !error.contains('\u{1b}'),
        "terminal escapes must not pass: {error:?}"
    );
    assert_eq!(double.asked("/manifests/"), 4, "one try and three retries");
}

#[test]
fn corrupt_bytes_never_become_a_layer() {
    require!();
    let image = image();
    let path = blob_path(&image.layers[1]);
    let mut bad = image.layers[1].clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x40;
    let double = Double::new(&image, move |r| match r.path.contains(&path) {
        true => Reply::Answer(200, Vec::new(), bad.clone()),
        false => Reply::Serve,
    });
    let store = TestStore::new();
    let error = fails(&store, &double);
    assert!(
        error.contains("corrupt") && error.contains(Digest::of(&image.layers[1]).as_str()),
        "{error}"
    );
    assert!(!store.has_blob(&image.layers[1]));
    assert_eq!(store.layer_count(), 0);
}

#[test]
fn a_blob_of_another_size_is_refused() {
    require!();
    for change in [-1_isize, 1] {
        let image = image();
        let path = blob_path(&image.layers[0]);
        let mut bad = image.layers[0].clone();
        bad.resize(bad.len().checked_add_signed(change).unwrap(), 0);
        let double = Double::new(&image, move |r| match r.path.contains(&path) {
            true => Reply::Answer(200, Vec::new(), bad.clone()),
            false => Reply::Serve,
        });
        let error = fails(&TestStore::new(), &double);
        assert!(error.contains("where the descriptor says"), "{error}");
    }
}

#[test]
fn a_blob_that_always_ends_early_is_truncated() {
    require!();
    let double = Double::new(&image(), |r| match r.path.contains("/blobs/") {
        true => Reply::Drop(1),
        false => Reply::Serve,
    });
    let error = fails(&TestStore::new(), &double);
    assert!(error.contains("/blobs/sha256:"), "{error}");
}

#[test]
fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    require!();
    let image = image();
    let double = Double::new(&image, |_| Reply::Serve);
    let other = Digest::of(b"another");
    let reference = berth_images::Reference::parse(&format!("{}/x@{other}", double.host())).unwrap();
    let error = TestStore::new()
        .images
        .pull(&reference, PullOptions::default())
        .unwrap_err();
    assert!(
        chain(&error).contains(&format!("not {other}")),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_huge_manifest_is_not_read() {
    require!();
    let mut image = image();
    image.manifest.resize((4 << 20) + 1, b' ');
    let double = Double::new(&image, |_| Reply::Serve);
    let error = fails(&TestStore::new(), &double);
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[test]
fn an_unknown_media_type_is_named() {
    require!();
    let mut image = image();
    let mut manifest = image.manifest_json();
    manifest["layers"][1]["mediaType"] = "application/vnd.example.layer".into();
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    let double = Double::new(&image, |_| Reply::Serve);
    let error = fails(&TestStore::new(), &double);
    assert!(error.contains("application/vnd.example.layer"), "{error}");
    assert_eq!(
        double.asked("/blobs/"),
        0,
        "nothing is fetched for an image that cannot be unpacked"
    );
}

#[test]
fn a_manifest_that_is_also_an_index_is_refused() {
    require!();
    let mut image = image();
    let mut manifest = image.manifest_json();
    manifest["manifests"] = serde_json::json!([]);
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    let double = Double::new(&image, |_| Reply::Serve);
    let error = fails(&TestStore::new(), &double);
    assert!(error.contains("ambiguous"), "{error}");
}

fn write_credentials(store: &TestStore, host: &str) {
    let file = store.dir.path().join("docker/config.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    // me:s3cret
    std::fs::write(
        file,
        format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6czNjcmV0"}}}}}}"#),
    )
    .unwrap();
}

const BASIC: &str = "Basic bWU6czNjcmV0";

#[test]
fn a_redirect_to_another_host_takes_no_credentials_along() {
    require!();
    let image = image();
    let other = Double::new(&image, |r| match r.headers.contains_key("authorization") {
        true => Reply::Answer(400, Vec::new(), Vec::new()),
        false => Reply::Serve,
    });
    let target = other.host();
    let double = Double::new(&image, move |r| {
        match r.headers.get("authorization").map(String::as_str) {
            Some(BASIC) if r.path.contains("/blobs/") => Reply::Answer(
                307,
                vec![("Location", format!("http://{target}{}", r.path))],
                Vec::new(),
            ),
            Some(BASIC) => Reply::Serve,
            _ => Reply::Answer(
                401,
                vec![("WWW-Authenticate", "Basic realm=\"x\"".into())],
                Vec::new(),
            ),
        }
    });
    let store = TestStore::new();
    write_credentials(&store, &double.host());
    store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
    let asked = other.requests();
    assert!(asked.len() >= 3);
    assert!(
        asked.iter().all(|r| !r.headers.contains_key("authorization")),
        "{asked:?}"
    );
}

#[test]
fn a_challenge_from_where_a_redirect_leads_is_not_answered() {
    require!();
    // CVE-2020-15157: the other host asks for credentials and names a realm that would receive them.
    let image = image();
    let realm = Double::new(&image, |_| Reply::Serve);
    let challenge = format!("Bearer realm=\"http://{}/token\"", realm.host());
    let other = Double::new(&image, move |_| {
        Reply::Answer(401, vec![("WWW-Authenticate", challenge.clone())], Vec::new())
    });
    let target = other.host();
    let double = Double::new(&image, move |r| match r.path.contains("/blobs/") {
        true => Reply::Answer(
            302,
            vec![("Location", format!("http://{target}{}", r.path))],
            Vec::new(),
        ),
        false => Reply::Serve,
    });
    let store = TestStore::new();
    write_credentials(&store, &double.host());
    let error = fails(&store, &double);
    assert!(error.contains("401"), "{error}");
    assert_eq!(realm.requests().len(), 0);
}

#[test]
fn a_401_that_comes_twice_says_so() {
    require!();
    let refuse = |_: &support::double::Request| {
        Reply::Answer(
            401,
            vec![("WWW-Authenticate", "Basic realm=\"x\"".into())],
            Vec::new(),
        )
    };
    let double = Double::new(&image(), refuse);
    let store = TestStore::new();
    let error = fails(&store, &double);
    assert!(
        error.contains("asks for credentials and none are configured"),
        "{error}"
    );
    write_credentials(&store, &double.host());
    let error = fails(&store, &double);
    assert!(error.contains("refuses the configured credentials"), "{error}");
    assert_eq!(
        double
            .requests()
            .iter()
            .filter(|r| r.headers.contains_key("authorization"))
            .count(),
        1
    );
    assert!(!error.contains("s3cret"));
}

#[test]
fn a_bearer_token_is_fetched_once_and_for_this_repository() {
    require!();
    let image = image();
    let service = Double::new(&image, |r| {
        let has = |part: &str| r.path.contains(part);
        let is_right = r.headers.get("authorization").is_some_and(|a| a == BASIC)
            && has("service=svc")
            && has("scope=repository%3Ax%3Apull");
        match is_right {
            true => Reply::Answer(200, Vec::new(), br#"{"token":"T0K"}"#.to_vec()),
            false => Reply::Answer(401, Vec::new(), Vec::new()),
        }
    });
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"svc\"", service.host());
    let double = Double::new(&image, move |r| {
        match r.headers.get("authorization").map(String::as_str) {
            Some("Bearer T0K") => Reply::Serve,
            _ => Reply::Answer(401, vec![("WWW-Authenticate", challenge.clone())], Vec::new()),
        }
    });
    let store = TestStore::new();
    write_credentials(&store, &double.host());
    store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
    assert_eq!(service.requests().len(), 1);
}

#[test]
fn mirrors_are_asked_in_order_and_passed_over_when_they_fail() {
    require!();
    let image = image();
    let dead = Double::new(&image, |_| Reply::Answer(404, Vec::new(), Vec::new()));
    let path = blob_path(&image.layers[0]);
    let half = Double::new(&image, move |r| match r.path.contains(&path) {
        true => Reply::Answer(404, Vec::new(), Vec::new()),
        false => Reply::Serve,
    });
    let double = Double::new(&image, |_| Reply::Serve);
    let (d, h, host) = (dead.host(), half.host(), double.host());
    let store = TestStore::with(|c: &mut registry::Config| {
        c.mirrors.insert(host, vec![d, h]);
    });
    write_credentials(&store, &double.host());
    store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
    assert!(dead.asked("/manifests/") == 1 && half.asked("/manifests/") == 1);
    assert_eq!(double.asked("/manifests/"), 0);
    assert_eq!(double.asked("/blobs/"), 1, "only the blob the mirror lacks");
}

#[test]
fn a_foreign_layer_is_not_fetched_from_where_it_says() {
    require!();
    let mut image = image();
    let other = Double::new(&image, |_| Reply::Serve);
    let mut manifest = image.manifest_json();
    manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{}/v2/x/blobs/l", other.host())]);
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    let path = blob_path(&image.layers[0]);
    let double = Double::new(&image, move |r| match r.path.contains(&path) {
        true => Reply::Answer(404, Vec::new(), Vec::new()),
        false => Reply::Serve,
    });
    let error = fails(&TestStore::new(), &double);
    assert!(error.contains("is foreign"), "{error}");
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn the_largest_layer_is_asked_for_first() {
    require!();
    let image = TestImage::new(&[
        ("small", noise(1000, 1)),
        ("large", noise(300_000, 2)),
        ("medium", noise(50_000, 3)),
    ]);
    let double = Double::new(&image, |_| Reply::Serve);
    let store = TestStore::with(|c: &mut registry::Config| c.parallel = 1);
    store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
    let asked: Vec<String> = double.requests().into_iter().map(|r| r.path).collect();
    let at = |layer: usize| {
        asked
            .iter()
            .position(|path| path.contains(&blob_path(&image.layers[layer])))
    };
    assert!(at(1) < at(2) && at(2) < at(0), "{asked:?}");
}

#[test]
fn three_layers_come_at_a_time() {
    require!();
    let names = ["a", "b", "c", "d", "e"];
    let image = TestImage::new(&names.map(|name| (name, noise(50_000, u64::from(name.as_bytes()[0])))));
    let layers: Vec<String> = image.layers.iter().map(|layer| blob_path(layer)).collect();
    let stalled = layers.clone();
    let double = Double::new(&image, move |r| {
        match stalled.iter().any(|layer| r.path.contains(layer)) {
            true => Reply::Stall(10),
            false => Reply::Serve,
        }
    });
    // None ever ends, so the pull ends with those it began with.
    let _ = fails(&TestStore::new(), &double);
    assert_eq!(layers.iter().filter(|layer| double.asked(layer) > 0).count(), 3);
}

#[test]
fn many_pulls_at_once_fetch_each_blob_once() {
    require!();
    let image = image();
    let double = Double::new(&image, |_| Reply::Serve);
    let store = TestStore::new();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                store
                    .images
                    .pull(&double.reference(), PullOptions::default())
                    .unwrap()
            });
        }
    });
    for layer in &image.layers {
        assert_eq!(double.asked(&blob_path(layer)), 1);
    }
    assert_eq!(store.leftovers(), Vec::<String>::new());
}

/// The process to be killed by the test below: this test program again, told by the environment whom to pull from.
#[test]
fn child_that_pulls_until_killed() {
    let (Some(host), Some(root)) = (
        std::env::var_os("TEST_PULL_HOST"),
        std::env::var_os("TEST_PULL_ROOT"),
    ) else {
        return;
    };
    let reference = berth_images::Reference::parse(&format!("{}/x:t", host.to_str().unwrap())).unwrap();
    let images = berth_images::Images::open(std::path::Path::new(&root)).unwrap();
    let _ = images.pull(&reference, PullOptions::default());
}

#[test]
fn a_killed_pull_leaves_nothing_that_hinders_the_next() {
    require!();
    let image = image();
    let path = blob_path(&image.layers[0]);
    let double = Double::new(&image, move |r| match r.nth {
        0 if r.path.contains(&path) => Reply::Stall(150_000),
        _ => Reply::Serve,
    });
    let store = TestStore::new();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_pulls_until_killed"])
        .env("TEST_PULL_HOST", double.host())
        .env("TEST_PULL_ROOT", store.images.root())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut tries = 0;
    while double.asked(&blob_path(&image.layers[0])) == 0 || store.leftovers().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(10));
        tries += 1;
        assert!(tries < 1000, "the child never asked for the layer");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!store.leftovers().is_empty(), "killed in the middle");
    let pulled = store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap();
    assert_eq!(
        std::fs::read(pulled.layers[0].join("a")).unwrap(),
        noise(300_000, 1)
    );
    assert_eq!(store.leftovers(), Vec::<String>::new());
}

/// The process whose memory the test below looks at.
#[test]
fn child_that_tells_its_peak_memory() {
    let (Some(host), Some(root)) = (
        std::env::var_os("TEST_PEAK_HOST"),
        std::env::var_os("TEST_PEAK_ROOT"),
    ) else {
        return;
    };
    let reference = berth_images::Reference::parse(&format!("{}/x:t", host.to_str().unwrap())).unwrap();
    let images = berth_images::Images::open(std::path::Path::new(&root)).unwrap();
    let start = std::time::Instant::now();
    images.pull(&reference, PullOptions::default()).unwrap();
    let pulled = start.elapsed();
    let start = std::time::Instant::now();
    for _ in 0..100 {
        images.resolve(&reference.to_string()).unwrap();
    }
    let resolved = start.elapsed() / 100;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap()
        .trim();
    eprintln!("peak {peak}; pull {pulled:?}; resolve {resolved:?}");
}

#[test]
fn peak_memory_does_not_grow_with_the_layers() {
    require!();
    let block = noise(1 << 20, 7);
    let big: Vec<u8> = block.iter().copied().cycle().take(48 << 20).collect();
    let image = TestImage::new(&[("a", big.clone()), ("b", big.clone()), ("c", big)]);
    let double = Double::new(&image, |_| Reply::Serve);
    let store = TestStore::new();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_tells_its_peak_memory", "--nocapture"])
        .env("TEST_PEAK_HOST", double.host())
        .env("TEST_PEAK_ROOT", store.images.root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    eprintln!("{said}");
    let peak_kib: u64 = said
        .split("peak ")
        .nth(1)
        .and_then(|s| s.split_whitespace().next()?.parse().ok())
        .unwrap();
    assert!(peak_kib < 64 << 10, "{said}");
}
