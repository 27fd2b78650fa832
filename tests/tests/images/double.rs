//! A registry that serves what a test puts into it, right or wrong: one image of an OCI layout under every name and tag, over
//! plain HTTP on loopback.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::fixture::{run, text};

/// What is served.
#[derive(Clone)]
pub struct Content {
    pub manifest: Value,
    /// Blank bytes behind the manifest.
    pub padding: usize,
    /// `Content-Type` of the manifest.
    pub media_type: String,
    /// Blobs that stop in the middle while the connection stays.
    pub stalls: Vec<String>,
    /// Blobs by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Pages of the list of tags: JSON, and what the `Link` header says comes next.
    pub tags: Vec<(String, Option<String>)>,
}

impl Content {
    /// The image a layout's index names first.
    pub fn of_layout(layout: &Path) -> Self {
        let blob = |digest: &str| {
            let hex = digest.trim_start_matches("sha256:");
            std::fs::read(layout.join("blobs/sha256").join(hex)).expect("a blob of the layout")
        };
        let index = std::fs::read(layout.join("index.json")).expect("the layout's index");
        let index: Value = serde_json::from_slice(&index).expect("an index is JSON");
        let target = &index["manifests"][0];
        let digest = target["digest"].as_str().expect("a descriptor has a digest");
        let manifest: Value = serde_json::from_slice(&blob(digest)).expect("a manifest is JSON");
        let layers = manifest["layers"].as_array().expect("a manifest has layers");
        let blobs = layers
            .iter()
            .chain([&manifest["config"]])
            .map(|descriptor| descriptor["digest"].as_str().expect("a descriptor has a digest"))
            .map(|digest| (digest.to_owned(), blob(digest)))
            .collect();
        Self {
            media_type: target["mediaType"]
                .as_str()
                .expect("it says of what type")
                .to_owned(),
            manifest,
            padding: 0,
            stalls: Vec::new(),
            blobs,
            tags: Vec::new(),
        }
    }

    /// The digest of a layer, as the manifest names it.
    pub fn layer(&self, index: usize) -> String {
        let digest = self.manifest["layers"][index]["digest"].as_str();
        digest.expect("the image has this layer").to_owned()
    }

    /// The tar of a gzip layer.
    pub fn tar(&self, index: usize, scratch: &Path) -> PathBuf {
        let tar = scratch.join("layer.tar");
        let _ = std::fs::remove_file(&tar);
        let compressed = scratch.join("layer.tar.gz");
        std::fs::write(&compressed, &self.blobs[&self.layer(index)]).expect("write a file");
        run("gzip", &["--decompress", text(&compressed)]);
        tar
    }

    /// Puts other bytes in a layer's place, digest and size being theirs; returns the digest.
    pub fn put_layer(&mut self, index: usize, bytes: Vec<u8>, scratch: &Path) -> String {
        let file = scratch.join("to-be-hashed");
        std::fs::write(&file, &bytes).expect("write a file");
        let digest = format!("sha256:{}", &run("sha256sum", &[text(&file)])[..64]);
        let descriptor = &mut self.manifest["layers"][index];
        descriptor["digest"] = digest.clone().into();
        descriptor["size"] = bytes.len().into();
        self.blobs.insert(digest.clone(), bytes);
        digest
    }
}

struct Shared {
    content: Mutex<Content>,
    is_over: AtomicBool,
}

/// Serves until dropped.
pub struct Double {
    port: u16,
    shared: Arc<Shared>,
}

impl Double {
    pub fn new(content: Content) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let shared = Arc::new(Shared {
            content: Mutex::new(content),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A client that hangs up early is part of the tests.
                std::thread::spawn(move || drop(answer(stream, &shared)));
            }
        });
        Self { port, shared }
    }

    /// A reference to the image.
    pub fn image(&self) -> String {
        format!("127.0.0.1:{}/served/image:1", self.port)
    }

    /// Serves this from now on.
    pub fn serve(&self, content: Content) {
        *self.shared.content.lock().expect("no thread panics with it") = content;
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut first = [0];
    // A TLS hello: this registry speaks plain HTTP.
    if stream.peek(&mut first)? == 0 || first[0] == 0x16 {
        return Ok(());
    }
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let mut link = None;
    let (status, media_type, body, stalls) = {
        let content = shared.content.lock().expect("no thread panics with it");
        let name = path.rsplit('/').next().unwrap_or_default();
        if path.contains("/manifests/") {
            let mut body = content.manifest.to_string().into_bytes();
            body.resize(body.len() + content.padding, b' ');
            (200, content.media_type.clone(), body, false)
        } else if path.contains("/blobs/") {
            let blob = content.blobs.get(name).cloned();
            (
                if blob.is_some() { 200 } else { 404 },
                "application/octet-stream".to_owned(),
                blob.unwrap_or_default(),
                content.stalls.iter().any(|digest| digest == name),
            )
        } else if path.contains("/tags/list") {
            // `?page=1` is the second.
            let page = name
                .rsplit('=')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            let (body, next) = content.tags.get(page).cloned().unwrap_or_default();
            link = next;
            (200, "application/json".to_owned(), body.into_bytes(), false)
        } else {
            (200, "application/json".to_owned(), b"{}".to_vec(), false)
        }
    };
    let length = body.len();
    let link = link.map_or_else(String::new, |link| format!("Link: {link}\r\n"));
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Type: {media_type}\r\n{link}Content-Length: {length}\r\n\r\n"
    )?;
    if stalls {
        stream.write_all(&body[..length / 2])?;
        // Until the client hangs up.
        return stream.read(&mut first).map(drop);
    }
    stream.write_all(&body)
}
