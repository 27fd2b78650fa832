//! A registry that does what a test tells it: a plain listener on loopback, one thread per connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::TestImage;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How many of the same method and path came before.
    pub nth: usize,
}

/// What to do about one.
pub enum Reply {
    /// Serve the image as a good registry would.
    Serve,
    /// As [`Reply::Serve`], but a Range is ignored.
    ServeAll,
    /// Close after this many bytes of the body.
    Drop(usize),
    /// Say nothing more after this many bytes of the body, and keep the connection.
    Stall(usize),
    /// This instead.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
}

type Rule = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

struct Shared {
    image: TestImage,
    rule: Rule,
    requests: Mutex<Vec<Request>>,
    is_over: AtomicBool,
}

/// Serves one image under every repository and tag until dropped.
pub struct Double {
    port: u16,
    shared: Arc<Shared>,
}

impl Double {
    pub fn new(image: &TestImage, rule: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            image: image.clone(),
            rule: Box::new(rule),
            requests: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shared) = (stream, Arc::clone(&accepting)) else {
                    continue;
                };
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { port, shared }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn reference(&self) -> berth_images::Reference {
        berth_images::Reference::parse(&format!("{}/x:t", self.host())).unwrap()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many requests had this in their path.
    pub fn asked(&self, part: &str) -> usize {
        self.requests().iter().filter(|r| r.path.contains(part)).count()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(mut stream: TcpStream, shared: &Shared) {
    let mut first = [0];
    // A TLS hello: this registry speaks plain HTTP.
    if !matches!(stream.peek(&mut first), Ok(1)) || first[0] == 0x16 {
        return;
    }
    let Some(mut request) = read_request(&stream) else {
        return;
    };
    {
        let mut requests = shared.requests.lock().unwrap();
        request.nth = requests
            .iter()
            .filter(|r| r.method == request.method && r.path == request.path)
            .count();
        requests.push(request.clone());
    }
    let (status, headers, body) = serve(shared, &request);
    let _ = match (shared.rule)(&request) {
        Reply::Serve => write(&mut stream, status, &headers, &body, body.len()),
        Reply::ServeAll => {
            let mut plain = request.clone();
            plain.headers.remove("range");
            let (status, headers, body) = serve(shared, &plain);
            write(&mut stream, status, &headers, &body, body.len())
        }
        Reply::Drop(n) => write(&mut stream, status, &headers, &body, n.min(body.len())),
        Reply::Stall(n) => {
            let _ = write(&mut stream, status, &headers, &body, n.min(body.len()));
            // Until the client hangs up.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
            stream.read(&mut first).map(drop)
        }
        Reply::Answer(status, headers, body) => write(&mut stream, status, &headers, &body, body.len()),
    };
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Request {
        method,
        path,
        headers,
        nth: 0,
    })
}

fn serve(shared: &Shared, request: &Request) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
    let image = &shared.image;
    let Some((_, name)) = request.path.rsplit_once('/') else {
        return (404, Vec::new(), Vec::new());
    };
    if request.path.contains("/manifests/") {
        let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
        return (200, vec![("Content-Type", kind)], image.manifest.clone());
    }
    if !request.path.contains("/blobs/") {
        return (200, Vec::new(), b"{}".to_vec());
    }
    let Some(blob) = image.blobs().remove(name) else {
        return (404, Vec::new(), Vec::new());
    };
    let range = request
        .headers
        .get("range")
        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match range {
        Some(start) => {
            let start: usize = start;
            let header = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
            (206, vec![("Content-Range", header)], blob[start..].to_vec())
        }
        None => (200, Vec::new(), blob),
    }
}

/// Announces the whole body and sends `sent` bytes of it.
fn write(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&'static str, String)],
    body: &[u8],
    sent: usize,
) -> std::io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&body[..sent])?;
    stream.flush()
}
