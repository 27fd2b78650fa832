//! Image references as docker writes them.
//!
//! ```text
//! [domain[:port]/]path[:tag][@digest]       busybox  ->  docker.io/library/busybox:latest
//! ```
//!
//! The part before the first slash is a registry only if it holds a dot or a colon, is `localhost`, or has an upper-case
//! letter (which no path may have); else the image is on docker.io, and under `library/` when it is one word. Grammar:
//! distribution's `reference` package documentation.

use std::fmt;
use std::str::FromStr;

use crate::digest::{self, Digest};

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// The host that serves docker.io.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const NAME_LEN_MAX: usize = 255;

/// A parsed reference. It always has a tag or a digest; with both, the digest decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// Nothing, or nothing before the tag.
    #[error("the name is empty")]
    Empty,
    /// Upper case in the repository path.
    #[error("the repository name must be lower case")]
    Uppercase,
    /// A path component breaks the grammar.
    #[error("{0:?} is not a valid repository name component")]
    Component(String),
    /// The registry part breaks the grammar.
    #[error("{0:?} is not a valid registry host")]
    Domain(String),
    /// A tag breaks the grammar.
    #[error("{0:?} is not a valid tag")]
    Tag(String),
    /// More than 255 characters of name.
    #[error("the name is longer than 255 characters")]
    TooLong,
    /// 64 hexadecimal digits would be mistaken for an image id.
    #[error("64 hexadecimal digits are an image id, not a name")]
    LooksLikeId,
    /// What follows `@` is not a digest.
    #[error("the digest is invalid")]
    Digest(#[source] digest::ParseError),
}

impl Reference {
    /// Parses and completes a reference: default registry, `library/`, `latest`.
    ///
    /// # Errors
    /// [`ParseError`] saying which part breaks the grammar.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut reference = Self::parse_untagged(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(DEFAULT_TAG.into());
        }
        Ok(reference)
    }

    fn parse_untagged(text: &str) -> Result<Self, ParseError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(ParseError::Digest)?)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; before it, a port.
        let (name, tag) = match rest.rfind(':') {
            Some(colon) if !rest[colon..].contains('/') => (&rest[..colon], Some(&rest[colon + 1..])),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|t| !is_tag(t)) {
            return Err(ParseError::Tag(shown(tag)));
        }
        if name.is_empty() {
            return Err(ParseError::Empty);
        }
        if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseError::LooksLikeId);
        }
        let (domain, path) = split_domain(name);
        if !is_domain(domain) {
            return Err(ParseError::Domain(shown(domain)));
        }
        for component in path.split('/') {
            if component.bytes().any(|b| b.is_ascii_uppercase()) {
                return Err(ParseError::Uppercase);
            }
            if !is_component(component) {
                return Err(ParseError::Component(shown(component)));
            }
        }
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if domain.len() + 1 + path.len() > NAME_LEN_MAX {
            return Err(ParseError::TooLong);
        }
        Ok(Self {
            domain: domain.to_owned(),
            path,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The registry as users name it, port included: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The host to connect to, port included; docker.io is served by another name than its own.
    #[must_use]
    pub fn registry_host(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN {
            DOCKER_HUB_HOST
        } else {
            &self.domain
        }
    }

    /// The repository on that registry: `library/busybox`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask the registry for: the digest, or else the tag.
    #[must_use]
    pub fn tag_or_digest(&self) -> &str {
        self.digest
            .as_ref()
            .map(Digest::as_str)
            .or(self.tag.as_deref())
            .unwrap_or(DEFAULT_TAG)
    }

    /// Domain and path without tag or digest: `docker.io/library/busybox`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as docker shows it: `busybox`, `localhost:5000/x`.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        match self.path.strip_prefix("library/") {
            // `library/x/y` would not come back when read as `x/y`.
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The full form, the key of an image record: `docker.io/library/busybox:latest`.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.with_repository(self.repository())
    }

    fn with_repository(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }

    /// The same repository by digest alone.
    #[must_use]
    pub fn at_digest(&self, digest: &Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest.clone()),
            ..self.clone()
        }
    }
}

/// Familiar: what docker prints, and what parses back to the same reference.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_repository(self.familiar_repository()))
    }
}

impl FromStr for Reference {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

fn split_domain(name: &str) -> (&str, &str) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DEFAULT_DOMAIN, name);
    };
    let is_host = first.contains(['.', ':'])
        || first == "localhost"
        || first.starts_with('[')
        || first.bytes().any(|b| b.is_ascii_uppercase());
    match (is_host, first) {
        (false, _) => (DEFAULT_DOMAIN, name),
        (true, "index.docker.io") => (DEFAULT_DOMAIN, rest),
        (true, _) => (first, rest),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any run of `-`.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    bytes.split(|&b| word(b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
    })
}

fn is_domain(domain: &str) -> bool {
    let is_port =
        |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok();
    if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = domain
        .split_once(':')
        .map_or((domain, None), |(h, p)| (h, Some(p)));
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_complete_as_docker_completes_them() {
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("myhost/x", "docker.io/myhost/x:latest", "myhost/x:latest"),
            ("MyHost/x", "MyHost/x:latest", "MyHost/x:latest"),
            ("quay.io/a/b/c:v1", "quay.io/a/b/c:v1", "quay.io/a/b/c:v1"),
            ("[::1]:5000/a:b", "[::1]:5000/a:b", "[::1]:5000/a:b"),
            (
                "library/x/y",
                "docker.io/library/x/y:latest",
                "library/x/y:latest",
            ),
            (
                "a__b/c-----d",
                "docker.io/a__b/c-----d:latest",
                "a__b/c-----d:latest",
            ),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.canonical(), canonical);
            assert_eq!(reference.to_string(), familiar);
        }
        let pinned = Reference::parse(&format!("busybox:1@sha256:{HEX}")).unwrap();
        assert_eq!(pinned.tag_or_digest(), format!("sha256:{HEX}"));
        assert_eq!(pinned.tag(), Some("1"));
        assert_eq!(
            Reference::parse("busybox").unwrap().registry_host(),
            "registry-1.docker.io"
        );
        assert_eq!(
            Reference::parse(&format!("busybox@sha256:{HEX}")).unwrap().tag(),
            None
        );
    }

    #[test]
    fn bad_references_name_the_part() {
        for (text, error) in [
            ("", ParseError::Empty),
            (":tag", ParseError::Empty),
            ("Busybox", ParseError::Uppercase),
            ("a/B", ParseError::Uppercase),
            ("busybox:", ParseError::Tag(String::new())),
            ("busybox:-x", ParseError::Tag("-x".into())),
            ("a//b", ParseError::Component(String::new())),
            ("a/../b", ParseError::Component("..".into())),
            ("a/b_", ParseError::Component("b_".into())),
            ("a___b", ParseError::Component("a___b".into())),
            ("localhost:99999/x", ParseError::Domain("localhost:99999".into())),
            ("-x.io/y", ParseError::Domain("-x.io".into())),
            ("a.b/ c", ParseError::Component(" c".into())),
            (HEX, ParseError::LooksLikeId),
        ] {
            assert_eq!(Reference::parse(text), Err(error), "{text:?}");
        }
        assert!(matches!(
            Reference::parse("a@sha256:00"),
            Err(ParseError::Digest(_))
        ));
        assert_eq!(
            Reference::parse(&format!("x.io/{}", "a".repeat(255))),
            Err(ParseError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn both_forms_parse_back(text in "([a-zA-Z0-9.:-]{0,12}/)?[a-z0-9._/-]{1,20}(:[a-zA-Z0-9._-]{0,8})?") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.canonical()).unwrap(), &reference);
            }
        }

        #[test]
        fn foreign_text_never_panics_nor_climbs(text in "\\PC*") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert!(reference.path().split('/').all(|c| c != ".." && c != "." && !c.is_empty()));
            }
        }
    }
}
