//! What the tests of this crate share: an image made in memory, a real registry, and one that misbehaves on purpose.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod double;
pub mod real;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use berth_images::progress::{Event, Progress};
use berth_images::{Digest, Images, registry};
use serde_json::json;

/// An image made in memory.
#[derive(Clone)]
pub struct TestImage {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl TestImage {
    /// One gzip layer per entry, holding one file of that name and content.
    pub fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let tars: Vec<Vec<u8>> = files
            .iter()
            .map(|(name, content)| tar_of(name, content))
            .collect();
        let layers: Vec<Vec<u8>> = tars.iter().map(|t| gzip(t)).collect();
        let diff_ids: Vec<Digest> = tars.iter().map(|t| Digest::of(t)).collect();
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": ["/bin/true"], "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": files.iter().map(|(n, _)| json!({"created_by": format!("add {n}")})).collect::<Vec<_>>(),
        }))
        .unwrap();
        let mut image = Self {
            manifest: Vec::new(),
            config,
            layers,
        };
        image.manifest = serde_json::to_vec(&image.manifest_json()).unwrap();
        image
    }

    /// The same image with zstd layers.
    pub fn zstd(&self) -> Self {
        let plain = |gzip: &Vec<u8>| {
            let mut tar = Vec::new();
            std::io::copy(&mut flate2::read::GzDecoder::new(gzip.as_slice()), &mut tar).unwrap();
            tar
        };
        let layers = self
            .layers
            .iter()
            .map(|l| zstd::encode_all(plain(l).as_slice(), 1).unwrap())
            .collect();
        let mut image = Self {
            layers,
            ..self.clone()
        };
        let json = image.manifest_json().to_string().replace("tar+gzip", "tar+zstd");
        image.manifest = json.into_bytes();
        image
    }

    pub fn manifest_json(&self) -> serde_json::Value {
        let describe = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("application/vnd.oci.image.config.v1+json", &self.config),
            "layers": self.layers.iter().map(|l| describe(layer, l)).collect::<Vec<_>>(),
        })
    }

    /// The blobs by digest.
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        self.layers
            .iter()
            .chain([&self.config])
            .map(|b| (Digest::of(b).to_string(), b.clone()))
            .collect()
    }

    /// Writes an OCI layout for skopeo.
    pub fn write_layout(&self, dir: &Path) {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for bytes in self.layers.iter().chain([&self.config, &self.manifest]) {
            std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
        }
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&self.manifest), "size": self.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        }]});
        std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    }
}

/// Bytes gzip cannot shrink, the same each time.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    let _ = name;
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image store in a directory of its own, impatient enough for tests, with nobody's credentials.
pub struct TestStore {
    pub dir: tempfile::TempDir,
    pub images: Images,
}

impl TestStore {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut registry::Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(&dir.path().join("root"))
            .unwrap()
            .with_registry(config(dir.path(), change));
        Self { dir, images }
    }

    /// Files in the ingest directory and layer directories with a leading dot: what a failed pull must not leave.
    pub fn leftovers(&self) -> Vec<String> {
        let list = |d: &str| std::fs::read_dir(self.images.root().join(d)).unwrap().flatten();
        let names = |e: std::fs::DirEntry| e.file_name().into_string().unwrap();
        list("ingest")
            .map(names)
            .chain(list("layers").map(names).filter(|n| n.starts_with('.')))
            .collect()
    }

    /// Layers stored.
    pub fn layer_count(&self) -> usize {
        std::fs::read_dir(self.images.root().join("layers"))
            .unwrap()
            .count()
    }

    pub fn has_blob(&self, bytes: &[u8]) -> bool {
        self.images
            .root()
            .join("blobs/sha256")
            .join(Digest::of(bytes).hex())
            .exists()
    }
}

pub fn config(dir: &Path, change: impl FnOnce(&mut registry::Config)) -> registry::Config {
    let mut config = registry::Config {
        backoff: Duration::from_millis(5),
        retries: 3,
        certs_dirs: vec![dir.join("certs.d")],
        auth_file: Some(dir.join("docker/config.json")),
        ..registry::Config::default()
    };
    config.timeouts.stall = Duration::from_millis(400);
    config.timeouts.response = Duration::from_secs(5);
    change(&mut config);
    config
}

/// An error with all its causes, as the binary would print it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    text
}

/// Remembers the lines of a transfer.
#[derive(Default)]
pub struct Recorder(pub Mutex<Vec<String>>);

impl Recorder {
    pub fn count(&self, word: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|l| l.starts_with(word))
            .count()
    }
}

impl Progress for Recorder {
    fn layer(&self, digest: &Digest, event: Event<'_>) {
        let text = match event {
            Event::Retrying { cause, .. } => format!("retrying {digest} {cause}"),
            other => format!("{other:?} {digest}").to_lowercase(),
        };
        self.0.lock().unwrap().push(text);
    }
    fn message(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

/// Says aloud that a test cannot run here; a failure when skipping is not allowed.
pub fn can_run(programs: &[&str]) -> bool {
    let missing: Vec<&&str> = programs
        .iter()
        .filter(|p| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            !std::env::split_paths(&path).any(|d| d.join(p).is_file())
        })
        .collect();
    let is_root = rustix::process::geteuid().is_root();
    if missing.is_empty() && is_root {
        return true;
    }
    assert!(
        std::env::var_os("BERTH_TESTS_STRICT").is_none(),
        "needs root and {programs:?}"
    );
    eprintln!("skipped: needs root (is root: {is_root}) and {missing:?}");
    false
}
