//! One repository on one endpoint: requests with a 401 answered, redirects followed without credentials, failures retried.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use super::auth::{self, Authorization, Challenge};
use super::credentials::{self, Credentials};
use super::endpoint::{self, Endpoint};
use super::error::shown;
use super::retry::{Retry, parse_retry_after};
use super::{Config, Error};
use crate::digest::Digest;
use crate::manifest::MANIFEST_BYTES_MAX;
use crate::media_type;

const REDIRECTS_MAX: u32 = 10;
const ERROR_BODY_MAX: usize = 16 << 10;

/// What a token must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actions {
    /// Reading.
    Pull,
    /// Reading and writing.
    PullPush,
}

/// A repository as one endpoint serves it.
#[derive(Debug)]
pub struct Repository {
    pub(super) config: Config,
    pub(super) endpoint: Endpoint,
    path: String,
    scope: String,
    auth_file: Option<PathBuf>,
    credentials: OnceLock<Option<Credentials>>,
    /// Whether anything has come from there.
    has_answered: AtomicBool,
    /// Met challenges by scope.
    authorizations: Mutex<HashMap<String, Authorization>>,
    /// Clients for where redirects lead: they carry neither this registry's certificates nor its leniency.
    elsewhere: Mutex<HashMap<String, Client>>,
}

/// A manifest or index as it was served.
#[derive(Debug, Clone)]
pub struct Document {
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// Their digest, checked against the request's.
    pub digest: Digest,
    /// The Content-Type header.
    pub media_type: String,
}

impl Repository {
    /// Finds the scheme under which `host` answers and readies a client for it. `domain` is the name credentials go by.
    ///
    /// # Errors
    /// [`Error::Address`], TLS trouble, or no answer at all.
    pub async fn connect(
        config: &Config,
        host: &str,
        domain: &str,
        path: &str,
        actions: Actions,
    ) -> Result<Self, Error> {
        let endpoint = find_endpoint(config, host, domain).await?;
        let verbs = match actions {
            Actions::Pull => "pull",
            Actions::PullPush => "pull,push",
        };
        let scope = if path.is_empty() {
            String::new()
        } else {
            format!("repository:{path}:{verbs}")
        };
        Ok(Self {
            auth_file: credentials::auth_file(config.auth_file.as_deref()),
            config: config.clone(),
            endpoint,
            path: path.to_owned(),
            scope,
            credentials: OnceLock::new(),
            has_answered: AtomicBool::new(false),
            authorizations: Mutex::new(HashMap::new()),
            elsewhere: Mutex::new(HashMap::new()),
        })
    }

    /// Uses these credentials instead of looking for some.
    #[must_use]
    pub fn with_credentials(mut self, given: Credentials) -> Self {
        self.credentials = OnceLock::from(Some(given));
        self
    }

    /// Allows the token to read another repository too, for a mount from there.
    #[must_use]
    pub fn reading_also(mut self, path: &str) -> Self {
        self.scope = format!("{} repository:{path}:pull", self.scope);
        self
    }

    /// `scheme://host[:port]/`.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.endpoint.base
    }

    /// Asks `/v2/`, answering a challenge: proves that the credentials are good.
    ///
    /// # Errors
    /// [`Error::CredentialsRefused`], [`Error::CredentialsMissing`], or the network's.
    pub async fn check(&self) -> Result<(), Error> {
        let url = self.join("v2/")?;
        self.retrying(async || {
            let response = self.request(&Method::GET, url.clone(), &|r| r).await?;
            self.success(response).await.map(drop)
        })
        .await
    }

    /// Fetches a manifest or index by tag or digest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooLarge`], [`Error::DigestMismatch`], or the network's.
    pub async fn manifest(&self, tag_or_digest: &str) -> Result<Document, Error> {
        let url = self.url("manifests", tag_or_digest)?;
        self.retrying(async || {
            let accept = |r: RequestBuilder| r.header(ACCEPT, media_type::ACCEPT_MANIFESTS);
            let response = self.request(&Method::GET, url.clone(), &accept).await?;
            if response.status() == StatusCode::NOT_FOUND {
                let is_digest = Digest::parse(tag_or_digest).is_ok();
                let mark = if is_digest { '@' } else { ':' };
                return Err(Error::NotFound(format!("{}{mark}{tag_or_digest}", self.path)));
            }
            let response = self.success(response).await?;
            let header = |name: &str| {
                response
                    .headers()
                    .get(name)
                    .and_then(|v| v.to_str().ok())
                    .unwrap_or_default()
                    .to_owned()
            };
            let media_type = header(CONTENT_TYPE.as_str());
            let claimed = Digest::parse(&header("docker-content-digest")).ok();
            let bytes = self.body(response, MANIFEST_BYTES_MAX).await?;
            let wanted = Digest::parse(tag_or_digest).ok().or(claimed);
            let digest = Digest::of(&bytes);
            match wanted {
                Some(wanted) if !wanted.matches(&bytes) => Err(Error::DigestMismatch {
                    url: shown(&url),
                    expected: wanted.to_string(),
                    received: digest.to_string(),
                }),
                Some(wanted) => Ok(Document {
                    bytes,
                    digest: wanted,
                    media_type,
                }),
                None => Ok(Document {
                    bytes,
                    digest,
                    media_type,
                }),
            }
        })
        .await
    }

    /// Stores a manifest or index under a tag or its digest.
    ///
    /// # Errors
    /// [`Error::Status`] with the registry's reason, or the network's.
    pub async fn put_manifest(
        &self,
        tag_or_digest: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let url = self.url("manifests", tag_or_digest)?;
        self.retrying(async || {
            let body = |r: RequestBuilder| r.header(CONTENT_TYPE, media_type).body(bytes.to_vec());
            let response = self.request(&Method::PUT, url.clone(), &body).await?;
            self.success(response).await.map(drop)
        })
        .await
    }

    /// The repository's name on the registry.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn url(&self, kind: &str, name: &str) -> Result<Url, Error> {
        self.join(&format!("v2/{}/{kind}/{name}", self.path))
    }

    fn join(&self, path: &str) -> Result<Url, Error> {
        self.endpoint
            .base
            .join(path)
            .map_err(|_| Error::Address(self.endpoint.base.to_string()))
    }

    /// Repeats a whole exchange while it fails in a way that may pass.
    pub(super) async fn retrying<T>(
        &self,
        mut exchange: impl AsyncFnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut retry = Retry::new(&self.config);
        loop {
            match exchange().await {
                Ok(done) => return Ok(done),
                Err(error) => {
                    let (wait, _) = retry.after(error)?;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// One request with redirects. Credentials go to the registry's own origin alone, on every hop.
    pub(super) async fn request(
        &self,
        method: &Method,
        url: Url,
        shape: &dyn Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let mut url = url;
        for _ in 0..REDIRECTS_MAX {
            let response = if endpoint::is_same_origin(&url, &self.endpoint.base) {
                self.request_own(method, &url, shape).await?
            } else {
                let client = self.client_elsewhere(&url)?;
                self.send(shape(client.request(method.clone(), url.clone())), method, &url)
                    .await?
            };
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            // Replaying a body to wherever a redirect points is not part of the protocol; uploads use Location.
            if method != Method::GET && method != Method::HEAD {
                return Ok(response);
            }
            url = self.redirected(&url, &response)?;
        }
        Err(Error::Redirect {
            url: shown(&url),
            to: String::new(),
            why: "too many redirects",
        })
    }

    fn redirected(&self, from: &Url, response: &Response) -> Result<Url, Error> {
        let to = response
            .headers()
            .get(LOCATION)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let refuse = |why| {
            let to = Url::parse(to).map_or_else(|_| to.chars().take(100).collect(), |u| shown(&u));
            Err(Error::Redirect {
                url: shown(from),
                to,
                why,
            })
        };
        match from.join(to) {
            Err(_) => refuse("not a URL"),
            Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
                refuse("not an HTTP URL")
            }
            Ok(url) if from.scheme() == "https" && url.scheme() == "http" => refuse("it leaves HTTPS"),
            Ok(url) => Ok(url),
        }
    }

    fn client_elsewhere(&self, url: &Url) -> Result<Client, Error> {
        let origin = url.origin().ascii_serialization();
        let mut clients = self
            .elsewhere
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = clients.get(&origin) {
            return Ok(client.clone());
        }
        let client = endpoint::client(&self.config, url)?;
        clients.insert(origin, client.clone());
        Ok(client)
    }

    async fn request_own(
        &self,
        method: &Method,
        url: &Url,
        shape: &dyn Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let mut is_answered = false;
        loop {
            let mut request = shape(self.endpoint.client.request(method.clone(), url.clone()));
            if let Some(authorization) = self.authorization() {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = self.send(request, method, url).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            if is_answered {
                let registry = self.endpoint.credentials_for.clone();
                return Err(match self.credentials()? {
                    Some(_) => Error::CredentialsRefused(registry),
                    None => Error::CredentialsMissing(registry),
                });
            }
            is_answered = true;
            let challenge = self.challenge(&response)?;
            let met = auth::meet(
                &self.endpoint,
                &challenge,
                self.credentials()?.as_ref(),
                &self.scope,
            )
            .await?;
            let mut known = self
                .authorizations
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            known.insert(self.scope.clone(), met);
        }
    }

    fn authorization(&self) -> Option<Authorization> {
        let known = self
            .authorizations
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(&self.scope).cloned()
    }

    /// Of several challenges, Bearer: a token can be narrower than a password.
    fn challenge(&self, response: &Response) -> Result<Challenge, Error> {
        let headers: Vec<&str> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .collect();
        let mut challenges: Vec<Challenge> =
            headers.iter().filter_map(|h| auth::parse_challenge(h)).collect();
        challenges.sort_by_key(|c| matches!(c, Challenge::Basic));
        challenges.into_iter().next().ok_or_else(|| Error::Challenge {
            registry: self.endpoint.credentials_for.clone(),
            challenge: headers.join(", ").chars().take(200).collect(),
        })
    }

    /// Looked up once, and only when asked for: a helper program may be slow or ask its user.
    fn credentials(&self) -> Result<Option<Credentials>, Error> {
        if let Some(found) = self.credentials.get() {
            return Ok(found.clone());
        }
        let found = match &self.auth_file {
            Some(path) => credentials::find(path, &self.endpoint.credentials_for)?,
            None => None,
        };
        Ok(self.credentials.get_or_init(|| found).clone())
    }

    /// Sends; waits for the headers as long as configured, for a body being sent as long as it takes.
    async fn send(&self, request: RequestBuilder, method: &Method, url: &Url) -> Result<Response, Error> {
        log::debug!("{method} {}", shown(url));
        let heard = |answer: Result<Response, reqwest::Error>| match answer {
            Ok(response) => {
                self.has_answered.store(true, Ordering::Relaxed);
                Ok(response)
            }
            Err(source) => {
                let error = Error::transport(method.as_str(), url, source);
                Err(if self.has_answered.load(Ordering::Relaxed) {
                    error
                } else {
                    error.or_unreachable()
                })
            }
        };
        if *method == Method::PUT || *method == Method::PATCH {
            return heard(request.send().await);
        }
        let waited = self.config.timeouts.response;
        match tokio::time::timeout(waited, request.send()).await {
            Ok(answer) => heard(answer),
            Err(_) => Err(Error::Stalled {
                url: shown(url),
                waited,
            }),
        }
    }

    /// Turns anything but 2xx into an error with the registry's own words.
    pub(super) async fn success(&self, mut response: Response) -> Result<Response, Error> {
        if response.status().is_success() {
            return Ok(response);
        }
        let url = shown(response.url());
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|v| v.to_str().ok())
            .and_then(parse_retry_after);
        let mut body = Vec::new();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(Duration::from_secs(5), response.chunk()).await {
            body.extend_from_slice(&chunk);
            if body.len() > ERROR_BODY_MAX {
                break;
            }
        }
        Err(Error::Status {
            url,
            status,
            detail: detail(&body),
            retry_after,
        })
    }

    /// Reads a body of at most `max` bytes.
    pub(super) async fn body(&self, mut response: Response, max: u64) -> Result<Vec<u8>, Error> {
        let url = shown(response.url());
        let too_large = || Error::TooLarge {
            url: url.clone(),
            max,
        };
        if response.content_length().is_some_and(|n| n > max) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response, &url).await? {
            if body.len() as u64 + chunk.len() as u64 > max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The next bytes of a body, or [`Error::Stalled`].
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
        url: &str,
    ) -> Result<Option<bytes::Bytes>, Error> {
        let waited = self.config.timeouts.stall;
        match tokio::time::timeout(waited, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|source| Error::Transport {
                method: "GET".into(),
                url: url.to_owned(),
                source: source.into(),
            }),
            Err(_) => Err(Error::Stalled {
                url: url.to_owned(),
                waited,
            }),
        }
    }
}

async fn find_endpoint(config: &Config, host: &str, domain: &str) -> Result<Endpoint, Error> {
    let bases = endpoint::bases(config, host)?;
    let mut last = None;
    let count = bases.len();
    for (i, base) in bases.into_iter().enumerate() {
        let client = endpoint::client(config, &base)?;
        let is_last = i + 1 == count;
        // Only where plain HTTP would be the next choice is it worth asking first.
        if !is_last {
            let url = base.join("v2/").map_err(|_| Error::Address(host.to_owned()))?;
            let asked = tokio::time::timeout(config.timeouts.response, client.get(url.clone()).send());
            match asked.await {
                Ok(Ok(_)) => {}
                Ok(Err(source)) => {
                    let error = Error::transport("GET", &url, source);
                    // Somebody speaks TLS there but is not who it should be, or wants to know who we are: no reason to speak more
                    // openly.
                    if error.is_certificate() || error.is_hung_up() {
                        return Err(error);
                    }
                    last = Some(error);
                    continue;
                }
                Err(_) => continue,
            }
        }
        return Ok(Endpoint {
            base,
            credentials_for: domain.to_owned(),
            client,
        });
    }
    Err(last.unwrap_or_else(|| Error::Address(host.to_owned())))
}

/// The messages of a distribution error body, made fit for one line of a terminal.
fn detail(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::new();
    };
    let errors = value
        .get("errors")
        .and_then(|e| e.as_array())
        .cloned()
        .unwrap_or_default();
    let messages: Vec<&str> = errors
        .iter()
        .filter_map(|e| e.get("message").or_else(|| e.get("code"))?.as_str())
        .collect();
    let text: String = messages
        .join("; ")
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}
