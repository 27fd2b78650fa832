//! What a registry, or the way to it, can do wrong.

use std::path::PathBuf;
use std::time::Duration;

use super::cause::{Cause, below};

/// A failed exchange with a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection, or it broke more often than it was worth retrying.
    #[error("{method} {url}")]
    Transport {
        /// HTTP method.
        method: String,
        /// Without query, which may carry signatures.
        url: String,
        /// From the HTTP client.
        source: Cause,
    },
    /// No connection, and there was none before: a wrong name or port more likely than a passing failure.
    #[error("{method} {url}")]
    Unreachable {
        /// HTTP method.
        method: String,
        /// Without query.
        url: String,
        /// From the HTTP client.
        source: Cause,
    },
    /// Who answers speaks something else.
    #[error("{method} {url}: no TLS is spoken there")]
    NoTls {
        /// HTTP method.
        method: String,
        /// Without query.
        url: String,
    },
    /// Nothing came for too long.
    #[error("{url} sent nothing for {} s", waited.as_secs())]
    Stalled {
        /// Without query.
        url: String,
        /// How long.
        waited: Duration,
    },
    /// The body ended early.
    #[error("{url} ended after {received} of {expected} bytes")]
    Truncated {
        /// Without query.
        url: String,
        /// Bytes so far.
        received: u64,
        /// Bytes announced by the descriptor.
        expected: u64,
    },
    /// An answer that is neither success nor understood.
    #[error("{url} answered {status}{detail}")]
    Status {
        /// Without query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own message, shortened, with a separator before it; may be empty.
        detail: String,
        /// How long the registry asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The blob's true size differs from its descriptor's.
    #[error("{url} offers {offered} bytes where the descriptor says {expected}")]
    Size {
        /// Without query.
        url: String,
        /// What the registry has, or how many bytes had come when it was too many.
        offered: u64,
        /// From the descriptor.
        expected: u64,
    },
    /// A foreign layer that the registry does not keep.
    #[error("layer {0} is foreign and not on the registry; berth does not fetch layers from other hosts")]
    ForeignLayer(String),
    /// The reference does not exist there.
    #[error("{0} does not exist, or may not be read without logging in")]
    NotFound(String),
    /// Asked for credentials, and there are none.
    #[error("{0} asks for credentials and none are configured")]
    CredentialsMissing(String),
    /// Refused the credentials.
    #[error("{0} refuses the configured credentials")]
    CredentialsRefused(String),
    /// A challenge that cannot be met.
    #[error("{registry} asks for an authentication berth does not speak: {challenge:?}")]
    Challenge {
        /// The registry.
        registry: String,
        /// Its WWW-Authenticate header.
        challenge: String,
    },
    /// The token service is not to be trusted with this.
    #[error("{registry} sends berth to {realm} for a token, which is not HTTPS")]
    RealmInsecure {
        /// The registry.
        registry: String,
        /// Where it points.
        realm: String,
    },
    /// The token service answered without a usable token.
    #[error("token service {0} gave no usable token")]
    Token(String),
    /// A redirect that would leave HTTPS, leads nowhere, or never ends.
    #[error("{url} redirects to {to:?}: {why}")]
    Redirect {
        /// From where.
        url: String,
        /// Where to.
        to: String,
        /// Why it is not followed.
        why: &'static str,
    },
    /// A manifest or other document beyond its limit.
    #[error("{url} sent more than {max} bytes")]
    TooLarge {
        /// Without query.
        url: String,
        /// The limit.
        max: u64,
    },
    /// A manifest that is not what its digest says.
    #[error("{url} sent bytes that hash to {received}, not {expected}")]
    DigestMismatch {
        /// Without query.
        url: String,
        /// Asked for.
        expected: String,
        /// Of what came.
        received: String,
    },
    /// The host part makes no URL.
    #[error("{0:?} is not a registry address")]
    Address(String),
    /// A certificate or key is unusable.
    #[error("cannot use certificate {}: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up TLS")]
    Tls(#[source] reqwest::Error),
    /// The credentials file is unusable.
    #[error("cannot use credentials in {}: {why}", path.display())]
    AuthFile {
        /// config.json.
        path: PathBuf,
        /// What is wrong; never the secret.
        why: String,
    },
    /// A credential helper failed.
    #[error("credential helper {helper}: {why}")]
    Helper {
        /// Its program name.
        helper: String,
        /// What it said.
        why: String,
    },
    /// An answer that breaks the protocol.
    #[error("{url} broke the protocol: {why}")]
    Protocol {
        /// Without query.
        url: String,
        /// How.
        why: &'static str,
    },
    /// The local side of a transfer failed.
    #[error("the local store failed")]
    Store(#[source] Box<crate::Error>),
}

impl Error {
    /// A request that got no answer.
    pub(super) fn transport(method: &str, url: &reqwest::Url, source: reqwest::Error) -> Self {
        let (method, url) = (method.to_owned(), shown(url));
        if find::<rustls::Error>(&source).is_some_and(|e| matches!(e, rustls::Error::InvalidMessage(_))) {
            return Self::NoTls { method, url };
        }
        let source = source.into();
        Self::Transport { method, url, source }
    }

    /// The same, when nothing of this registry has answered yet: a connection that cannot be made is not worth waiting for then.
    pub(super) fn or_unreachable(self) -> Self {
        match self {
            Self::Transport { method, url, source } if source.is_connect() && !is_certificate(&*source) => {
                Self::Unreachable { method, url, source }
            }
            other => other,
        }
    }

    /// The error and its causes in one sentence, for a message beside which nothing else tells them.
    #[must_use]
    pub fn whole(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let cause = error.to_string();
            // Some crates repeat their source in their own text.
            if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = error.source();
        }
        text
    }

    /// Whether the other side speaks TLS but is not who it should be.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        matches!(self, Self::Transport { source, .. } if is_certificate(&**source))
    }

    /// Whether an HTTPS server shook hands and then closed the connection without an answer. One that wants a certificate of its
    /// clients does: TLS 1.3 lets it say so only after the handshake, when nobody may be listening any more.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        matches!(self, Self::Transport { url, source, .. }
            if url.starts_with("https:") && source.is_request() && !source.is_connect() && !source.is_timeout())
    }

    /// Whether nothing that makes sense came from the other side: it is not there, silent, or no registry.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Transport { .. } | Self::Unreachable { .. } | Self::NoTls { .. } | Self::Stalled { .. }
        )
    }

    /// Whether the same request may succeed if sent again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { source, .. } => !source.is_builder() && !is_certificate(&**source),
            Self::Stalled { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

/// Whether a certificate was refused, by us or by them; refused once, it is refused again.
fn is_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    // Bytes that are no TLS at all are how a plain HTTP server answers.
    find::<rustls::Error>(error).is_some_and(|tls| !matches!(tls, rustls::Error::InvalidMessage(_)))
}

/// The first cause of this type.
fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    below(error).and_then(find)
}

/// A URL fit for messages: storage back ends sign their queries, and user info may be a password.
#[must_use]
pub fn shown(url: &reqwest::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}
