//! Answering a 401: Basic, or a Bearer token from the service the challenge names.
//!
//! Only the registry itself is listened to. A challenge from wherever a redirect or a layer's `urls` led is an error, never
//! a reason to show credentials (CVE-2020-15157). A registry on HTTPS may name a token service on another host, as Docker
//! Hub does, but only on HTTPS too.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use super::Error;
use super::credentials::Credentials;
use super::endpoint::{Endpoint, is_loopback};
use super::error::shown;

/// A token service's answer is a few kilobytes.
const TOKEN_BYTES_MAX: usize = 1 << 20;

/// A parsed WWW-Authenticate header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// The token service.
        realm: String,
        /// Its name for this registry.
        service: Option<String>,
        /// What the registry thinks is needed.
        scope: Option<String>,
    },
}

/// Parses a challenge header: scheme, then comma-separated `key="value"` (RFC 9110 §11.6.1).
#[must_use]
pub fn parse_challenge(header: &str) -> Option<Challenge> {
    let header = header.trim();
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parse_parameters(rest);
    let realm = parameters.remove("realm")?;
    Some(Challenge::Bearer {
        realm,
        service: parameters.remove("service"),
        scope: parameters.remove("scope"),
    })
}

fn parse_parameters(text: &str) -> HashMap<String, String> {
    let mut parameters = HashMap::new();
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let mut value = String::new();
        let remaining = if let Some(quoted) = after.strip_prefix('"') {
            let mut end = quoted.len();
            let mut chars = quoted.char_indices();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => value.extend(chars.next().map(|(_, c)| c)),
                    c => value.push(c),
                }
            }
            quoted.get(end..).unwrap_or_default()
        } else {
            let end = after.find(',').unwrap_or(after.len());
            value.push_str(after[..end].trim());
            &after[end..]
        };
        parameters.insert(key.trim().to_ascii_lowercase(), value);
        rest = remaining.trim_start().trim_start_matches(',').trim_start();
    }
    parameters
}

/// What a request carries.
pub type Authorization = HeaderValue;

/// The header for user and password.
#[must_use]
pub fn basic(user: &str, password: &str) -> Option<Authorization> {
    secret(&format!(
        "Basic {}",
        STANDARD.encode(format!("{user}:{password}"))
    ))
}

fn secret(text: &str) -> Option<Authorization> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Turns a challenge of the registry at `endpoint` into the header that meets it.
///
/// # Errors
/// [`Error::CredentialsMissing`], [`Error::CredentialsRefused`] by the token service, [`Error::RealmInsecure`],
/// [`Error::Token`], or the network's.
pub async fn meet(
    endpoint: &Endpoint,
    challenge: &Challenge,
    credentials: Option<&Credentials>,
    scope: &str,
) -> Result<Authorization, Error> {
    let registry = || endpoint.credentials_for.clone();
    match (challenge, credentials) {
        (_, Some(Credentials::RegistryToken(token))) => {
            secret(&format!("Bearer {token}")).ok_or_else(|| Error::CredentialsRefused(registry()))
        }
        (Challenge::Basic, Some(Credentials::Basic { user, password })) => {
            basic(user, password).ok_or_else(|| Error::CredentialsRefused(registry()))
        }
        (Challenge::Basic, _) => Err(Error::CredentialsMissing(registry())),
        (
            Challenge::Bearer {
                realm,
                service,
                scope: suggested,
            },
            credentials,
        ) => {
            let url = trusted_realm(endpoint, realm)?;
            let credentials = credentials.filter(|_| may_see_credentials(&endpoint.base, &url));
            let scope = if scope.is_empty() {
                suggested.as_deref().unwrap_or_default()
            } else {
                scope
            };
            let token = fetch_token(endpoint, url, service.as_deref(), scope, credentials).await?;
            secret(&format!("Bearer {token}")).ok_or_else(|| Error::Token(realm.clone()))
        }
    }
}

/// A realm on plain HTTP is visited only for a registry that is itself on plain HTTP.
fn trusted_realm(endpoint: &Endpoint, realm: &str) -> Result<Url, Error> {
    let insecure = || Error::RealmInsecure {
        registry: endpoint.credentials_for.clone(),
        realm: realm.to_owned(),
    };
    let url = Url::parse(realm).map_err(|_| insecure())?;
    match (endpoint.base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Ok(url),
        _ => Err(insecure()),
    }
}

/// HTTPS hosts named by an HTTPS registry may; on plain HTTP, where anybody could have written the challenge, only the
/// registry's own host may, or another port of this machine.
fn may_see_credentials(registry: &Url, realm: &Url) -> bool {
    (registry.scheme() == "https" && realm.scheme() == "https")
        || registry.host_str() == realm.host_str()
        || (is_loopback(registry) && is_loopback(realm))
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

async fn fetch_token(
    endpoint: &Endpoint,
    mut url: Url,
    service: Option<&str>,
    scope: &str,
    credentials: Option<&Credentials>,
) -> Result<String, Error> {
    let at = shown(&url);
    let request = if let Some(Credentials::IdentityToken(token)) = credentials {
        // The OAuth2 form (distribution's token/oauth): the refresh token goes in a body, not in a URL.
        let mut form = Url::parse("form:").map_err(|_| Error::Token(at.clone()))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("client_id", "berth")
            .append_pair("scope", scope)
            .append_pair("refresh_token", token);
        endpoint
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned())
    } else {
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scope.split(' ').filter(|s| !s.is_empty()) {
                query.append_pair("scope", scope);
            }
        }
        let mut request = endpoint.client.get(url);
        if let Some(Credentials::Basic { user, password }) = credentials {
            request = request.basic_auth(user, Some(password));
        }
        request
    };
    let transport = |source: reqwest::Error| Error::Transport {
        method: "token".into(),
        url: at.clone(),
        source: source.into(),
    };
    let mut response = request
        .timeout(std::time::Duration::from_secs(60))
        .send()
        .await
        .map_err(transport)?;
    match response.status().as_u16() {
        200..=299 => {}
        400 | 401 | 403 if credentials.is_some() => {
            return Err(Error::CredentialsRefused(endpoint.credentials_for.clone()));
        }
        401 | 403 => return Err(Error::CredentialsMissing(endpoint.credentials_for.clone())),
        status => {
            return Err(Error::Status {
                url: at,
                status,
                detail: String::new(),
                retry_after: None,
            });
        }
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > TOKEN_BYTES_MAX {
            return Err(Error::Token(at));
        }
        body.extend_from_slice(&chunk);
    }
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| Error::Token(at.clone()))?;
    answer
        .token
        .or(answer.access_token)
        .filter(|t| !t.is_empty())
        .ok_or(Error::Token(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_parse() {
        assert_eq!(parse_challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            parse_challenge(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(parse_challenge("Bearer service=x"), None);
        assert_eq!(parse_challenge("Negotiate abc"), None);
    }

    fn at(base: &str) -> Endpoint {
        Endpoint {
            base: Url::parse(base).unwrap(),
            credentials_for: "r".into(),
            client: super::super::endpoint::client(
                &super::super::Config::default(),
                &Url::parse("http://x/").unwrap(),
            )
            .unwrap(),
        }
    }

    #[test]
    fn an_https_registry_cannot_send_credentials_over_http() {
        assert!(trusted_realm(&at("https://r.io/"), "http://r.io/token").is_err());
        assert!(trusted_realm(&at("https://r.io/"), "https://auth.io/token").is_ok());
        assert!(trusted_realm(&at("http://r.lan/"), "file:///etc/passwd").is_err());
    }

    #[test]
    fn over_http_only_the_registrys_own_host_sees_credentials() {
        let url = |t: &str| Url::parse(t).unwrap();
        assert!(!may_see_credentials(
            &url("http://r.lan/"),
            &url("http://evil.lan/token")
        ));
        assert!(!may_see_credentials(
            &url("http://r.lan/"),
            &url("https://evil.com/token")
        ));
        assert!(may_see_credentials(
            &url("http://r.lan:5000/"),
            &url("http://r.lan:5001/token")
        ));
        assert!(may_see_credentials(
            &url("http://localhost:5000/"),
            &url("http://127.0.0.1:1/t")
        ));
        assert!(may_see_credentials(
            &url("https://r.io/"),
            &url("https://auth.io/token")
        ));
    }

    proptest! {
        #[test]
        fn foreign_headers_never_panic(header in "\\PC*", tail in "[a-z=\",\\\\ ]{0,40}") {
            let _ = parse_challenge(&header);
            let _ = parse_challenge(&format!("Bearer {tail}"));
        }
    }
}
