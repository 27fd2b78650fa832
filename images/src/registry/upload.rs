//! A blob goes up: found there, mounted from another repository, or sent; resumed in chunks where a connection broke.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::Error;
use super::download::Notice;
use super::error::shown;
use super::exchange::Repository;
use super::retry::Retry;
use crate::digest::Digest;
use crate::manifest::Descriptor;

const CHUNK_BYTES: usize = 128 << 10;

/// How a blob got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was there.
    Exists,
    /// The registry linked it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// What became of asking for an upload.
enum Begun {
    Mounted,
    Session(Url),
}

impl Repository {
    /// Whether the repository has this blob.
    ///
    /// # Errors
    /// The network's, or an unexpected status.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        self.has("blobs", digest.as_str()).await
    }

    async fn has(&self, kind: &str, name: &str) -> Result<bool, Error> {
        let url = self.url(kind, name)?;
        self.retrying(async || {
            let response = self.request(&Method::HEAD, url.clone(), &|r| r).await?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(false),
                _ => self.success(response).await.map(|_| true),
            }
        })
        .await
    }

    /// Puts the blob stored at `path` into the repository, from `mount_from` if the registry has it there. `sent` counts
    /// bytes as they leave.
    ///
    /// # Errors
    /// [`Error::Status`] with the registry's reason, [`Error::Store`], or the network's.
    pub async fn upload(
        &self,
        descriptor: &Descriptor,
        path: &Path,
        mount_from: Option<&str>,
        sent: &Arc<AtomicU64>,
        notice: &dyn Fn(Notice<'_>),
    ) -> Result<Sent, Error> {
        if self.has_blob(&descriptor.digest).await? {
            return Ok(Sent::Exists);
        }
        let mut session = match self
            .retrying(async || self.begin(descriptor, mount_from).await)
            .await?
        {
            Begun::Mounted => return Ok(Sent::Mounted),
            Begun::Session(url) => url,
        };
        let mut retry = Retry::new(&self.config);
        let mut offset = 0;
        loop {
            let before = sent.load(Ordering::Relaxed);
            let Err(error) = self.send_rest(descriptor, path, &session, offset, sent).await else {
                return Ok(Sent::Uploaded);
            };
            if sent.load(Ordering::Relaxed) > before + (1 << 20) {
                retry.progressed();
            }
            let (wait, error) = retry.after(error)?;
            notice(Notice::Retrying(wait, &error));
            tokio::time::sleep(wait).await;
            // Ask how much arrived; a session that is gone starts over.
            (session, offset) = match self.progress_of(&session).await {
                Some((url, offset)) if offset <= descriptor.size => (url, offset),
                _ => match self.retrying(async || self.begin(descriptor, None).await).await? {
                    Begun::Mounted => return Ok(Sent::Mounted),
                    Begun::Session(url) => (url, 0),
                },
            };
        }
    }

    async fn begin(&self, descriptor: &Descriptor, mount_from: Option<&str>) -> Result<Begun, Error> {
        let mut url = self.url("blobs", "uploads/")?;
        if let Some(from) = mount_from {
            url.query_pairs_mut()
                .append_pair("mount", descriptor.digest.as_str())
                .append_pair("from", from);
        }
        let response = self
            .request(&Method::POST, url.clone(), &|r: RequestBuilder| {
                r.header(CONTENT_LENGTH, 0)
            })
            .await?;
        let response = self.success(response).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        location(&url, &response).map(Begun::Session)
    }

    /// Sends from `offset` to the end: all of it in one PUT, or the rest as a chunk and an empty PUT.
    async fn send_rest(
        &self,
        descriptor: &Descriptor,
        path: &Path,
        session: &Url,
        offset: u64,
        sent: &Arc<AtomicU64>,
    ) -> Result<(), Error> {
        let finish = |url: &Url| {
            let mut url = url.clone();
            url.query_pairs_mut()
                .append_pair("digest", descriptor.digest.as_str());
            url
        };
        let rest = descriptor.size - offset;
        // The body is made per request: a 401 on the way sends it again from the start.
        let with_body = |r: RequestBuilder| {
            sent.store(offset, Ordering::Relaxed);
            r.header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, rest)
                .body(body(path.to_owned(), offset, rest, Arc::clone(sent)))
        };
        if offset == 0 {
            let request = self.request(&Method::PUT, finish(session), &with_body);
            let response = self.while_moving(request, sent, session).await?;
            return self.success(response).await.map(drop);
        }
        let mut session = session.clone();
        if rest > 0 {
            let chunk = |r: RequestBuilder| {
                with_body(r).header(CONTENT_RANGE, format!("{offset}-{}", descriptor.size - 1))
            };
            let request = self.request(&Method::PATCH, session.clone(), &chunk);
            let response = self.while_moving(request, sent, &session).await?;
            let response = self.success(response).await?;
            session = location(&session, &response)?;
        }
        let empty = |r: RequestBuilder| r.header(CONTENT_LENGTH, 0);
        let response = self.request(&Method::PUT, finish(&session), &empty).await?;
        self.success(response).await.map(drop)
    }

    /// Awaits a sending request as long as bytes leave; a registry that stops reading, or reads all and does not answer,
    /// has stalled.
    async fn while_moving<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
        sent: &AtomicU64,
        url: &Url,
    ) -> Result<T, Error> {
        let mut request = std::pin::pin!(request);
        let waited = self.config.timeouts.response.max(self.config.timeouts.stall);
        let mut last = u64::MAX;
        loop {
            match tokio::time::timeout(waited, &mut request).await {
                Ok(answer) => return answer,
                Err(_) if sent.load(Ordering::Relaxed) != last => last = sent.load(Ordering::Relaxed),
                Err(_) => {
                    return Err(Error::Stalled {
                        url: shown(url),
                        waited,
                    });
                }
            }
        }
    }

    /// Where the session goes on, and after how many bytes (distribution-spec: GET on the location, `Range: 0-N`).
    async fn progress_of(&self, session: &Url) -> Option<(Url, u64)> {
        let asked = self.request(&Method::GET, session.clone(), &|r| r);
        let response = tokio::time::timeout(Duration::from_secs(30), asked)
            .await
            .ok()?
            .ok()?;
        if response.status() != StatusCode::NO_CONTENT {
            return None;
        }
        let last = response
            .headers()
            .get(RANGE)?
            .to_str()
            .ok()?
            .rsplit_once('-')?
            .1
            .trim()
            .parse::<u64>()
            .ok()?;
        // "0-0" is how nothing is written, and also one byte; sending that byte again from 0 is always right.
        let offset = if last == 0 { 0 } else { last + 1 };
        Some((location(session, &response).ok()?, offset))
    }
}

/// Where to go on. May be another host; [`Repository::request`] keeps the credentials from it then.
fn location(from: &Url, response: &Response) -> Result<Url, Error> {
    let header = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
    let url = header.and_then(|to| from.join(to).ok());
    match url {
        Some(url) if from.scheme() == "https" && url.scheme() != "https" => Err(Error::Redirect {
            url: shown(from),
            to: shown(&url),
            why: "it leaves HTTPS",
        }),
        Some(url) => Ok(url),
        None => Err(Error::Protocol {
            url: shown(from),
            why: "no usable Location for the upload",
        }),
    }
}

/// A stream of the file's `length` bytes from `offset`.
fn body(path: std::path::PathBuf, offset: u64, length: u64, sent: Arc<AtomicU64>) -> Body {
    struct State {
        path: std::path::PathBuf,
        file: Option<tokio::fs::File>,
        left: u64,
    }
    let state = State {
        path,
        file: None,
        left: length,
    };
    let stream = futures_util::stream::try_unfold(state, move |mut state| {
        let sent = Arc::clone(&sent);
        async move {
            if state.left == 0 {
                return Ok::<_, std::io::Error>(None);
            }
            if state.file.is_none() {
                let mut file = tokio::fs::File::open(&state.path).await?;
                file.seek(std::io::SeekFrom::Start(offset)).await?;
                state.file = Some(file);
            }
            let Some(file) = state.file.as_mut() else {
                return Ok(None);
            };
            let mut chunk = bytes::BytesMut::with_capacity(CHUNK_BYTES);
            if file.read_buf(&mut chunk).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let taken = usize::try_from(state.left).unwrap_or(usize::MAX).min(chunk.len());
            chunk.truncate(taken);
            state.left -= taken as u64;
            sent.fetch_add(taken as u64, Ordering::Relaxed);
            Ok(Some((chunk.freeze(), state)))
        }
    });
    Body::wrap_stream(stream)
}
