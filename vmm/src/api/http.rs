//! As much of HTTP/1.1 (RFC 9112) as the API speaks: requests with a `Content-Length`, answers of JSON.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The request line and all headers; a client that sends more is refused.
pub(super) const HEAD_MAX: usize = 8 << 10;
/// Headers of a request; likewise.
const HEADERS_MAX: usize = 64;

/// A request, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The method as written, `PUT`.
    pub method: String,
    /// The path, without scheme and host.
    pub path: String,
    /// The body; empty when there is none.
    pub body: Vec<u8>,
}

/// What stands before the body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    /// Bytes of the body.
    pub(super) length: usize,
    /// The client sends the body only when it is told to.
    pub(super) expects: bool,
    /// The connection ends after the answer.
    pub(super) last: bool,
}

/// Why a client is not understood. Nothing that follows on its connection can be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    #[error("Invalid HTTP request: {0}")]
    Syntax(#[from] httparse::Error),
    #[error("Invalid HTTP request: its head has more than {HEAD_MAX} bytes")]
    LongHead,
    #[error("Invalid HTTP request: Content-Length {0:?}")]
    Length(String),
    #[error("Request payload with size {length} is larger than the limit of {most} allowed by server.")]
    LargeBody { length: usize, most: usize },
    #[error("Invalid HTTP request: not supported: {0}: give a Content-Length")]
    Encoded(&'static str),
    #[error("Invalid HTTP request: not supported: Expect: {0:?}")]
    Expectation(String),
}

/// Reads a head from the beginning of `input`; with it, how long it is. `None` when it is not all there.
pub(super) fn head(input: &[u8], body_max: usize) -> Result<Option<(Head, usize)>, Bad> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let consumed = match parsed.parse(input)? {
        httparse::Status::Complete(consumed) if consumed <= HEAD_MAX => consumed,
        httparse::Status::Partial if input.len() < HEAD_MAX => return Ok(None),
        _ => return Err(Bad::LongHead),
    };
    let mut head = Head {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: origin_form(parsed.path.unwrap_or_default()).to_owned(),
        length: 0,
        expects: false,
        // The default of HTTP/1.0.
        last: parsed.version == Some(0),
    };
    let mut length = None;
    for header in parsed.headers {
        let value = header.value.trim_ascii();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let text = || String::from_utf8_lossy(value).into_owned();
        if is("content-length") {
            let number = number(value).ok_or_else(|| Bad::Length(text()))?;
            // Two that differ are two opinions where the next request begins (RFC 9112 §6.3).
            if *length.get_or_insert(number) != number {
                return Err(Bad::Length(text()));
            }
        } else if is("transfer-encoding") {
            return Err(Bad::Encoded("Transfer-Encoding"));
        } else if is("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Bad::Expectation(text()));
            }
            head.expects = true;
        } else if is("connection") {
            for option in value.split(|byte| *byte == b',') {
                match option.trim_ascii().to_ascii_lowercase().as_slice() {
                    b"close" => head.last = true,
                    b"keep-alive" => head.last = false,
                    _ => {}
                }
            }
        }
    }
    head.length = length.unwrap_or(0);
    if head.length > body_max {
        return Err(Bad::LargeBody {
            length: head.length,
            most: body_max,
        });
    }
    Ok(Some((head, consumed)))
}

/// Digits and nothing else: not `+5`, not an empty text.
fn number(value: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(value).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The path of `http://localhost/path`.
fn origin_form(target: &str) -> &str {
    match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    }
}

/// What a client that waits before its body is told.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    status: Status,
    body: Option<String>,
    deprecated: bool,
}

/// How it went, as far as HTTP tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Status {
    Ok,
    NoContent,
    BadRequest,
    Unavailable,
}

#[derive(Serialize)]
struct Fault<'a> {
    fault_message: &'a str,
}

impl Response {
    /// Done; there is nothing to tell.
    #[must_use]
    pub fn done() -> Response {
        Response::new(Status::NoContent, None)
    }

    /// Done, and this is the answer.
    #[must_use]
    pub fn json(body: &impl Serialize) -> Response {
        Response::new(Status::Ok, Some(written(body)))
    }

    /// Refused, or failed.
    #[must_use]
    pub fn fault(message: &str) -> Response {
        let body = Fault {
            fault_message: message,
        };
        Response::new(Status::BadRequest, Some(written(&body)))
    }

    /// There are too many clients.
    pub(super) fn full() -> Response {
        let body = Fault {
            fault_message: "Too many open connections",
        };
        Response::new(Status::Unavailable, Some(written(&body)))
    }

    /// The same, with a warning that the request used what will go away.
    #[must_use]
    pub fn deprecated(self, deprecated: bool) -> Response {
        Response { deprecated, ..self }
    }

    /// The JSON, if there is any.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// Whether it says that the request was refused or failed.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self.status, Status::BadRequest | Status::Unavailable)
    }

    /// Whether it is one that this monitor gives, if somebody else says so: JSON, where there is to be any.
    pub(crate) fn is_sound(&self) -> bool {
        let is_json = |body: &String| serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
        match self.status {
            Status::Ok | Status::BadRequest => self.body.as_ref().is_some_and(is_json),
            Status::NoContent => self.body.is_none(),
            Status::Unavailable => false,
        }
    }

    fn new(status: Status, body: Option<String>) -> Response {
        Response {
            status,
            body,
            deprecated: false,
        }
    }

    /// The answer as it goes over the wire; `last` when the connection ends with it.
    pub(super) fn encode(&self, last: bool) -> Vec<u8> {
        let (code, reason) = match self.status {
            Status::Ok => (200, "OK"),
            Status::NoContent => (204, "No Content"),
            Status::BadRequest => (400, "Bad Request"),
            Status::Unavailable => (503, "Service Unavailable"),
        };
        let connection = if last { "close" } else { "keep-alive" };
        let mut text =
            format!("HTTP/1.1 {code} {reason}\r\nServer: berth-vmm\r\nConnection: {connection}\r\n");
        if self.deprecated {
            text.push_str("Deprecation: true\r\n");
        }
        if let Some(body) = &self.body {
            write!(
                text,
                "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .expect("a string takes what it is given");
        } else {
            text.push_str("\r\n");
        }
        text.into_bytes()
    }
}

fn written(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("no map here has keys that are not strings")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<(Head, usize)>, String> {
        head(text.as_bytes(), 100).map_err(|e| e.to_string())
    }

    #[test]
    fn heads_are_read() {
        let text = "PUT http://localhost/drives/a HTTP/1.1\r\nhost: x\r\nCONTENT-LENGTH:  7 \r\nExpect: 100-continue\r\n\r\n{";
        let (head, length) = read(text).unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.path.as_str()), ("PUT", "/drives/a"));
        assert_eq!((head.length, head.expects, head.last), (7, true, false));
        assert_eq!(length, text.len() - 1);
        let (old, _) = read("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert!(old.last);
        let (closing, _) = read("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n")
            .unwrap()
            .unwrap();
        assert!(closing.last);
        assert!(read("GET / HTTP/1.1\r\nHost: x\r\n").unwrap().is_none());
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_refused() {
        for (headers, words) in [
            ("Content-Length: 1\r\nContent-Length: 2", "Content-Length"),
            ("Content-Length: +1", "Content-Length"),
            ("Content-Length: 1, 1", "Content-Length"),
            ("Content-Length:", "Content-Length"),
            ("Content-Length: 99999999999999999999", "Content-Length"),
            ("Content-Length: 101", "larger than the limit of 100"),
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding",
            ),
            ("Expect: 103-checkpoint", "Expect"),
            ("bad header", "Invalid HTTP request"),
            ("Content-Length : 1", "Invalid HTTP request"),
        ] {
            let error = read(&format!("PUT / HTTP/1.1\r\n{headers}\r\n\r\n")).unwrap_err();
            assert!(error.contains(words), "{headers}: {error}");
        }
        assert!(read("GET / HTTP/2.0\r\n\r\n").is_err());
        assert!(read("\u{1}").is_err());
        let many = "x: y\r\n".repeat(HEADERS_MAX + 1);
        assert!(read(&format!("GET / HTTP/1.1\r\n{many}\r\n")).is_err());
        let long = "x".repeat(HEAD_MAX);
        assert!(read(&format!("GET /{long}")).is_err());
        assert!(read(&format!("GET /{long} HTTP/1.1\r\n\r\n")).is_err());
    }

    #[test]
    fn answers_are_written_as_clients_expect_them() {
        let text = |response: Response, last| String::from_utf8(response.encode(last)).unwrap();
        assert_eq!(
            text(Response::done(), false),
            "HTTP/1.1 204 No Content\r\nServer: berth-vmm\r\nConnection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            text(Response::fault("no \"x\"\n"), true),
            "HTTP/1.1 400 Bad Request\r\nServer: berth-vmm\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: 30\r\n\r\n{\"fault_message\":\"no \\\"x\\\"\\n\"}"
        );
        let old = text(Response::json(&[1]).deprecated(true), false);
        assert!(old.contains("\r\nDeprecation: true\r\n") && old.ends_with("\r\n\r\n[1]"));
    }
}
