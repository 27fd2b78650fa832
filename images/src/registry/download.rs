//! A blob comes down: in order, resumed where a connection broke, never more bytes than announced.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};

use super::Error;
use super::error::shown;
use super::exchange::Repository;
use super::retry::Retry;
use crate::manifest::Descriptor;

/// Bytes after which a transfer counts as having moved, so that its patience is restored. A server that drips a byte per
/// connection is not worth waiting for.
const PROGRESS_BYTES: u64 = 64 << 10;

/// Something a transfer's owner may want to show.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// Trying again after this long, because of that.
    Retrying(Duration, &'a Error),
}

impl Repository {
    /// Gives the blob's bytes to `sink`, from `offset` on, each once and in order. The caller verifies the digest; this
    /// promises only that `sink` got exactly `descriptor.size` bytes in all.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Size`], [`Error::ForeignLayer`], what `sink` returns, or the network's after the
    /// configured number of retries without progress.
    pub async fn download(
        &self,
        descriptor: &Descriptor,
        offset: &mut u64,
        mut sink: impl AsyncFnMut(Bytes) -> Result<(), crate::Error>,
        notice: &dyn Fn(Notice<'_>),
    ) -> Result<(), Error> {
        let mut retry = Retry::new(&self.config);
        let mut may_range = true;
        let mut last_progress = *offset;
        loop {
            let attempt = self
                .download_once(descriptor, offset, &mut may_range, &mut sink)
                .await;
            let Err(error) = attempt else { return Ok(()) };
            if *offset - last_progress >= PROGRESS_BYTES {
                last_progress = *offset;
                retry.progressed();
            }
            let (wait, error) = retry.after(error)?;
            notice(Notice::Retrying(wait, &error));
            tokio::time::sleep(wait).await;
        }
    }

    async fn download_once(
        &self,
        descriptor: &Descriptor,
        offset: &mut u64,
        may_range: &mut bool,
        sink: &mut impl AsyncFnMut(Bytes) -> Result<(), crate::Error>,
    ) -> Result<(), Error> {
        let url = self.url("blobs", descriptor.digest.as_str())?;
        let at = shown(&url);
        let from = if *may_range { *offset } else { 0 };
        let range = |r: RequestBuilder| {
            if from > 0 {
                r.header(RANGE, format!("bytes={from}-"))
            } else {
                r
            }
        };
        let response = self.request(&Method::GET, url, &range).await?;
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let start = range_start(&response).filter(|start| *start <= *offset);
                let Some(start) = start else {
                    *may_range = false;
                    return Err(Error::Truncated {
                        url: at,
                        received: *offset,
                        expected: descriptor.size,
                    });
                };
                *offset - start
            }
            StatusCode::OK => {
                // A full answer of another length cannot be this blob; not worth a byte of it.
                if let Some(offered) = response.content_length().filter(|n| *n != descriptor.size) {
                    return Err(Error::Size {
                        url: at,
                        offered,
                        expected: descriptor.size,
                    });
                }
                // The server ignores Range: begin anew, passing over what is here already. The digest over both parts
                // tells if they do not belong together.
                *offset
            }
            StatusCode::RANGE_NOT_SATISFIABLE if *may_range && from > 0 => {
                *may_range = false;
                return Err(Error::Truncated {
                    url: at,
                    received: *offset,
                    expected: descriptor.size,
                });
            }
            StatusCode::NOT_FOUND if descriptor.urls.as_ref().is_some_and(|u| !u.is_empty()) => {
                return Err(Error::ForeignLayer(descriptor.digest.to_string()));
            }
            StatusCode::NOT_FOUND => return Err(Error::NotFound(format!("blob {}", descriptor.digest))),
            _ => {
                self.success(response).await?;
                return Err(Error::Protocol {
                    url: at,
                    why: "an unexpected success status",
                });
            }
        };
        let mut response = response;
        while let Some(mut chunk) = self.chunk(&mut response, &at).await? {
            let length = chunk.len() as u64;
            if skip >= length {
                skip -= length;
                continue;
            }
            if skip > 0 {
                let passed = usize::try_from(skip).unwrap_or(chunk.len());
                chunk = chunk.split_off(passed);
                skip = 0;
            }
            let received = *offset + chunk.len() as u64;
            if received > descriptor.size {
                return Err(Error::Size {
                    url: at,
                    offered: received,
                    expected: descriptor.size,
                });
            }
            sink(chunk).await.map_err(|e| Error::Store(Box::new(e)))?;
            *offset = received;
        }
        if *offset < descriptor.size {
            return Err(Error::Truncated {
                url: at,
                received: *offset,
                expected: descriptor.size,
            });
        }
        Ok(())
    }
}

/// The first byte's position in a `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response) -> Option<u64> {
    let header = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    header
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}
