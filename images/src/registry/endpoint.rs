//! One place a registry's content may be had: a scheme, a host, and an HTTP client with that host's certificates.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::{Certificate, Client, Identity, Url, redirect};

use super::{Config, Error};

/// A host to ask.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `scheme://host[:port]/`.
    pub base: Url,
    /// Whose credentials it gets: the registry's name as users write it.
    pub credentials_for: String,
    /// Redirects are never followed by it.
    pub client: Client,
}

/// Where to look for a registry's content, in order: mirrors, then itself.
#[must_use]
pub fn candidates(config: &Config, domain: &str, host: &str) -> Vec<String> {
    let mirrors = config.mirrors.get(domain).or_else(|| config.mirrors.get(host));
    let mut hosts: Vec<String> = mirrors.into_iter().flatten().cloned().collect();
    hosts.push(host.to_owned());
    hosts
}

/// The URLs under which `host` may answer, most secure first.
///
/// # Errors
/// [`Error::Address`].
pub fn bases(config: &Config, host: &str) -> Result<Vec<Url>, Error> {
    let parse = |text: String| {
        Url::parse(&text)
            .ok()
            .filter(|u| u.has_host() && matches!(u.scheme(), "http" | "https"))
            .ok_or_else(|| Error::Address(host.to_owned()))
    };
    if host.contains("://") {
        let mut url = parse(host.to_owned())?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        return Ok(vec![url]);
    }
    let https = parse(format!("https://{host}/"))?;
    if is_loopback(&https) || is_insecure(config, &https) {
        return Ok(vec![https, parse(format!("http://{host}/"))?]);
    }
    Ok(vec![https])
}

/// Whether the user said this registry need not be trusted to be who it says.
#[must_use]
pub fn is_insecure(config: &Config, url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let with_port = url
        .port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    config.insecure.iter().any(|name| {
        let name = name
            .rsplit_once("://")
            .map_or(name.as_str(), |(_, rest)| rest)
            .trim_end_matches('/');
        name == with_port || (url.port().is_some_and(|p| p == 443 || p == 80) && name == host)
    })
}

/// Whether the address cannot leave this host.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether two URLs are served by the same party: scheme, host and port agree.
#[must_use]
pub fn is_same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// An HTTP client for one base URL: system roots (`SSL_CERT_FILE` heeded), the host's own CA and client certificate.
///
/// # Errors
/// [`Error::Certificate`], [`Error::Tls`].
pub fn client(config: &Config, base: &Url) -> Result<Client, Error> {
    // Two providers may be linked in; naming one here makes the choice ours. Failure means it was named already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
        // Followed by hand, for credentials must not go along (CVE-2020-15157 and kin).
        .redirect(redirect::Policy::none())
        // Ours, with back-off and Range.
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(config.timeouts.connect)
        .pool_max_idle_per_host(config.parallel.max(1));
    if is_loopback(base) {
        builder = builder.no_proxy();
    }
    if base.scheme() == "http" {
        // Reading the system's roots costs milliseconds, and fails where there are none.
        return builder.tls_certs_only([]).build().map_err(Error::Tls);
    }
    let own = read_certs_dir(config, base)?;
    if !own.roots.is_empty() {
        builder = builder.tls_certs_merge(own.roots);
    }
    if let Some(identity) = own.identity {
        builder = builder.identity(identity);
    }
    if is_insecure(config, base) {
        builder = builder
            .tls_danger_accept_invalid_certs(true)
            .tls_danger_accept_invalid_hostnames(true);
    }
    builder.build().map_err(Error::Tls)
}

#[derive(Default)]
struct OwnCerts {
    roots: Vec<Certificate>,
    identity: Option<Identity>,
}

/// `<dir>/<host[:port]>/`: every `*.crt` is a CA, `*.cert` with its `*.key` a client certificate.
fn read_certs_dir(config: &Config, base: &Url) -> Result<OwnCerts, Error> {
    let mut own = OwnCerts::default();
    let host = base.host_str().unwrap_or_default();
    let name = base
        .port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    for root in &config.certs_dirs {
        let Ok(directory) = std::fs::read_dir(root.join(&name)) else {
            continue;
        };
        let mut paths: Vec<PathBuf> = directory.flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            let bad = |why: String| Error::Certificate {
                path: path.clone(),
                why,
            };
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => {
                    let pem = std::fs::read(&path).map_err(|e| bad(e.to_string()))?;
                    let certs = Certificate::from_pem_bundle(&pem).map_err(|e| bad(e.to_string()))?;
                    own.roots.extend(certs);
                }
                Some("cert") if own.identity.is_none() => {
                    let mut pem = std::fs::read(&path).map_err(|e| bad(e.to_string()))?;
                    let key = path.with_extension("key");
                    pem.push(b'\n');
                    pem.extend(std::fs::read(&key).map_err(|e| bad(format!("its key: {e}")))?);
                    own.identity = Some(Identity::from_pem(&pem).map_err(|e| bad(e.to_string()))?);
                }
                _ => {}
            }
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemes(config: &Config, host: &str) -> Vec<String> {
        bases(config, host)
            .unwrap()
            .iter()
            .map(|u| u.scheme().to_owned())
            .collect()
    }

    #[test]
    fn plain_http_needs_loopback_or_the_users_word() {
        let config = Config {
            insecure: vec!["reg.lan:5000".into()],
            ..Config::default()
        };
        assert_eq!(schemes(&config, "quay.io"), ["https"]);
        assert_eq!(schemes(&config, "127.0.0.1.evil.com:5000"), ["https"]);
        assert_eq!(schemes(&config, "reg.lan:5001"), ["https"]);
        for host in ["localhost:5000", "127.0.0.1:5000", "[::1]:5000", "reg.lan:5000"] {
            assert_eq!(schemes(&config, host), ["https", "http"], "{host}");
        }
        assert_eq!(schemes(&config, "http://mirror.lan"), ["http"]);
        assert!(bases(&config, "ftp://x").is_err());
        assert!(bases(&config, "a b").is_err());
    }

    #[test]
    fn a_mirror_comes_before_its_registry() {
        let mirrors = [("docker.io".to_owned(), vec!["m1".to_owned(), "m2".to_owned()])].into();
        let config = Config {
            mirrors,
            ..Config::default()
        };
        assert_eq!(
            candidates(&config, "docker.io", "registry-1.docker.io"),
            ["m1", "m2", "registry-1.docker.io"]
        );
        assert_eq!(candidates(&config, "quay.io", "quay.io"), ["quay.io"]);
    }
}
