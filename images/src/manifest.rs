//! Descriptors, manifests and indexes: the documents between a name and its layers.
//!
//! One document has one meaning. A manifest that also lists `manifests`, an index that also lists `layers`, or a body whose
//! own `mediaType` contradicts how it was served could be read differently by two programs that share a digest
//! (CVE-2021-41190), so each is refused.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::media_type::{self, Document};
use crate::platform::Platform;

/// The largest manifest or index read, in bytes (distribution-spec: registries should accept at least 4 MiB).
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// The largest image config read, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// More layers than overlayfs can stack (500 lower directories).
const LAYERS_MAX: usize = 500;

/// Points at a blob (image-spec descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// What its bytes hash to.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// Where else a foreign layer may be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// In an index: what the manifest runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What an artifact's manifest holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor of `bytes`.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor with nothing optional.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: None,
            annotations: None,
            platform: None,
            artifact_type: None,
        }
    }
}

/// An image manifest of either dialect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// OCI lets it be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// An image index or docker manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// OCI lets it be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// One manifest per platform, most wanted first.
    pub manifests: Vec<Descriptor>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A document whose kind has been decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Choose a platform next.
    Index(Index),
    /// Fetch config and layers next.
    Manifest(Box<Manifest>),
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a manifest nor an index of a known kind.
    #[error("media type {0:?} is not supported")]
    MediaType(String),
    /// Schema 1, which has no content addresses worth trusting.
    #[error("docker schema 1 manifests are not supported")]
    Schema1,
    /// Not JSON, or not of this shape.
    #[error("the document is malformed")]
    Malformed(#[source] serde_json::Error),
    /// Served as one kind, claims another.
    #[error("served as {served:?} but its mediaType says {own:?}")]
    Contradiction {
        /// From the Content-Type header or the descriptor.
        served: String,
        /// From the body.
        own: String,
    },
    /// Can be read as a manifest and as an index.
    #[error("the document holds both manifests and layers, so its meaning is ambiguous")]
    Ambiguous,
    /// A version other than 2.
    #[error("schemaVersion {0} is not supported")]
    SchemaVersion(u64),
    /// The config blob is no image config.
    #[error("config media type {0:?} is not supported: not a container image")]
    ConfigMediaType(String),
    /// A layer berth cannot unpack.
    #[error("layer {digest} has media type {media_type:?}, which is not supported")]
    LayerMediaType {
        /// Which layer.
        digest: Digest,
        /// What it claims to be.
        media_type: String,
    },
    /// More layers than can be mounted.
    #[error("{0} layers are more than the {LAYERS_MAX} that can be mounted")]
    TooManyLayers(usize),
    /// The image config is larger than berth reads.
    #[error("a config of {0} bytes is larger than {CONFIG_BYTES_MAX}")]
    ConfigTooLarge(u64),
}

/// The members that decide a document's kind; all others are ignored here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Parses a document served as `served` (a Content-Type or a descriptor's media type; empty if unknown).
///
/// # Errors
/// [`Error`] when the kind is unknown or ambiguous, or the body is malformed. Layers of unknown media types are reported
/// by [`Manifest::check`], since an index's other manifests may hold what is no image.
pub fn parse(bytes: &[u8], served: &str) -> Result<Parsed, Error> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(Error::Malformed)?;
    let served = media_type::essence(served);
    let own = shape.media_type.as_deref().unwrap_or_default();
    if shape.fs_layers.is_some()
        || shape.schema_version == Some(1)
        || [served, own].iter().any(|t| {
            matches!(
                *t,
                media_type::DOCKER_MANIFEST_V1 | media_type::DOCKER_MANIFEST_V1_SIGNED
            )
        })
    {
        return Err(Error::Schema1);
    }
    if shape.schema_version != Some(2) {
        return Err(Error::SchemaVersion(shape.schema_version.unwrap_or(0)));
    }
    if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
        return Err(Error::Ambiguous);
    }
    // Plain servers say application/json or nothing; then the body decides, and by the check above it decides one way.
    let is_vague = matches!(
        served,
        "" | "application/json" | "application/octet-stream" | "text/plain"
    );
    if !is_vague && !own.is_empty() && served != own {
        return Err(Error::Contradiction {
            served: served.into(),
            own: own.into(),
        });
    }
    let kind = match (is_vague, own) {
        (false, _) => media_type::document(served).ok_or_else(|| Error::MediaType(served.into()))?,
        (true, "") if shape.manifests.is_some() => Document::Index,
        (true, "") => Document::Manifest,
        (true, own) => media_type::document(own).ok_or_else(|| Error::MediaType(own.into()))?,
    };
    match kind {
        Document::Index if shape.layers.is_some() => Err(Error::Ambiguous),
        Document::Manifest if shape.manifests.is_some() => Err(Error::Ambiguous),
        Document::Index => serde_json::from_slice(bytes)
            .map(Parsed::Index)
            .map_err(Error::Malformed),
        Document::Manifest => serde_json::from_slice(bytes)
            .map(|m| Parsed::Manifest(Box::new(m)))
            .map_err(Error::Malformed),
    }
}

impl Parsed {
    /// The document's media type: what its body says, else what it was served as, else OCI's.
    #[must_use]
    pub fn media_type<'a>(&'a self, served: &'a str) -> &'a str {
        let (own, fallback) = match self {
            Self::Index(index) => (&index.media_type, media_type::OCI_INDEX),
            Self::Manifest(manifest) => (&manifest.media_type, media_type::OCI_MANIFEST),
        };
        let served = media_type::essence(served);
        let served = if media_type::document(served).is_some() {
            served
        } else {
            fallback
        };
        own.as_deref().unwrap_or(served)
    }
}

impl Manifest {
    /// Checks that this is an image berth can unpack.
    ///
    /// # Errors
    /// [`Error`] naming the config or layer of a kind berth does not read.
    pub fn check(&self) -> Result<(), Error> {
        if !media_type::is_config(&self.config.media_type) {
            return Err(Error::ConfigMediaType(self.config.media_type.clone()));
        }
        if self.config.size > CONFIG_BYTES_MAX {
            return Err(Error::ConfigTooLarge(self.config.size));
        }
        if self.layers.len() > LAYERS_MAX {
            return Err(Error::TooManyLayers(self.layers.len()));
        }
        match self
            .layers
            .iter()
            .find(|l| media_type::layer(&l.media_type).is_none())
        {
            Some(l) => Err(Error::LayerMediaType {
                digest: l.digest.clone(),
                media_type: l.media_type.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl Index {
    /// The manifest that fits `platform` best. Attestations (`unknown/unknown`) never fit. An index of a single manifest
    /// without a platform means that one; its config says what it runs on.
    #[must_use]
    pub fn choose(&self, platform: &Platform) -> Option<&Descriptor> {
        match platform.choose(self.manifests.iter().map(|m| m.platform.as_ref())) {
            Some(i) => self.manifests.get(i),
            None => match &self.manifests[..] {
                [only] if only.platform.is_none() => Some(only),
                _ => None,
            },
        }
    }

    /// What the index offers, for an error message.
    #[must_use]
    pub fn offers(&self) -> String {
        let names: Vec<String> = self
            .manifests
            .iter()
            .filter_map(|m| m.platform.as_ref())
            .map(ToString::to_string)
            .collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media_type::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
    use proptest::prelude::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str) -> Vec<u8> {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{D}","size":2}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{D}","size":0}}]{extra}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn a_manifest_is_read_however_vaguely_it_is_served() {
        for served in [
            OCI_MANIFEST,
            "",
            "application/json; charset=utf-8",
            DOCKER_MANIFEST,
        ] {
            assert!(
                matches!(parse(&manifest(""), served), Ok(Parsed::Manifest(_))),
                "{served}"
            );
        }
    }

    #[test]
    fn ambiguity_is_refused() {
        // CVE-2021-41190: the same bytes read as two different documents.
        let both = manifest(r#","manifests":[]"#);
        for served in [OCI_MANIFEST, OCI_INDEX, ""] {
            assert!(matches!(parse(&both, served), Err(Error::Ambiguous)), "{served}");
        }
        let claims = manifest(&format!(r#","mediaType":"{OCI_INDEX}""#));
        assert!(matches!(
            parse(&claims, OCI_MANIFEST),
            Err(Error::Contradiction { .. })
        ));
        let index_with_layers = br#"{"schemaVersion":2,"layers":[]}"#;
        assert!(matches!(
            parse(index_with_layers, OCI_INDEX),
            Err(Error::Ambiguous)
        ));
    }

    #[test]
    fn old_and_unknown_documents_are_named() {
        assert!(matches!(
            parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, ""),
            Err(Error::Schema1)
        ));
        assert!(matches!(parse(&manifest(""), "text/html"), Err(Error::MediaType(t)) if t == "text/html"));
        assert!(matches!(
            parse(br#"{"schemaVersion":3}"#, OCI_MANIFEST),
            Err(Error::SchemaVersion(3))
        ));
        assert!(matches!(parse(b"<html>", OCI_MANIFEST), Err(Error::Malformed(_))));
        let Ok(Parsed::Manifest(mut m)) = parse(&manifest(""), "") else {
            panic!()
        };
        assert!(m.check().is_ok());
        m.layers[0].media_type = "application/vnd.wasm".into();
        assert!(
            matches!(m.check(), Err(Error::LayerMediaType { media_type, .. }) if media_type == "application/vnd.wasm")
        );
    }

    #[test]
    fn a_path_for_a_digest_is_malformed() {
        let text = String::from_utf8(manifest(""))
            .unwrap()
            .replace(D, "sha256:../../x");
        assert!(matches!(
            parse(text.as_bytes(), OCI_MANIFEST),
            Err(Error::Malformed(_))
        ));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>, served in "\\PC{0,30}") {
            let _ = parse(&bytes, &served);
        }
    }
}
