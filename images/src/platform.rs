//! Platforms (`os/architecture[/variant]`) and which of an index's manifests fits one.
//!
//! Names are Go's (image-spec image-index.md#platform), aliases people type (`x86_64`, `aarch64`) are folded. Variants are
//! backward compatible within one architecture, so an `arm/v6` image serves an `arm/v7` host, never the reverse.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An operating system and a processor, as indexes and image configs name them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH: `amd64`, `arm64`, …
    pub architecture: String,
    /// GOOS: `linux`.
    pub os: String,
    /// `v7`, `v8`, … where the architecture has variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Only meaningful for Windows.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// Why a text is not a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not os/architecture[/variant]")]
pub struct ParseError(String);

impl Platform {
    /// The platform this program was built for.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = normalise(std::env::consts::ARCH, None);
        Self {
            architecture,
            os: "linux".into(),
            variant,
            os_version: None,
        }
    }

    /// Parses what `--platform` takes: `os/arch`, `os/arch/variant`, or an architecture alone.
    ///
    /// # Errors
    /// [`ParseError`] when a part is missing or holds a character no platform has.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError(text.chars().take(128).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let word = |s: &&str| {
            !s.is_empty()
                && s.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(word) {
            return Err(error());
        }
        let (os, architecture, variant) = match parts[..] {
            [arch] if arch != "linux" => ("linux", arch, None),
            [_] => return Ok(Self::host()),
            [os, arch] => (os, arch, None),
            [os, arch, variant] => (os, arch, Some(variant)),
            _ => return Err(error()),
        };
        let (architecture, variant) = normalise(architecture, variant);
        Ok(Self {
            architecture,
            os: os.to_ascii_lowercase(),
            variant,
            os_version: None,
        })
    }

    /// The same platform with aliases folded and default variants dropped or filled.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let (architecture, variant) = normalise(&self.architecture, self.variant.as_deref());
        Self {
            architecture,
            os: self.os.to_ascii_lowercase(),
            variant,
            os_version: self.os_version.clone(),
        }
    }

    /// How well `offered` serves a request for `self`: 0 is exact, larger is older, `None` does not run.
    #[must_use]
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        let wanted = self.normalised();
        let offered = offered.normalised();
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        if wanted.variant == offered.variant {
            return Some(0);
        }
        // A missing variant is the oldest one, which every processor of the architecture runs.
        let (base, ours, theirs) = match wanted.architecture.as_str() {
            "amd64" => (
                1,
                level(wanted.variant.as_deref(), 1)?,
                level(offered.variant.as_deref(), 1)?,
            ),
            "arm" => (
                5,
                level(wanted.variant.as_deref(), 7)?,
                level(offered.variant.as_deref(), 5)?,
            ),
            "arm64" => (
                8,
                level(wanted.variant.as_deref(), 8)?,
                level(offered.variant.as_deref(), 8)?,
            ),
            _ => return offered.variant.is_none().then_some(1),
        };
        (theirs <= ours && theirs >= base).then(|| (ours - theirs) as usize)
    }

    /// The position of the best fitting platform among `offered`; the first wins a tie.
    pub fn choose<'a>(&self, offered: impl Iterator<Item = Option<&'a Self>>) -> Option<usize> {
        offered
            .enumerate()
            .filter_map(|(i, p)| Some((self.rank(p?)?, i)))
            .min()
            .map(|(_, i)| i)
    }
}

/// The number in `v8` or `v8.2`; a missing variant is `default`.
fn level(variant: Option<&str>, default: u32) -> Option<u32> {
    match variant {
        None => Some(default),
        Some(v) => v.strip_prefix('v')?.split('.').next()?.parse().ok(),
    }
}

fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
    let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
        ("i386" | "i686" | "x86" | "386", _) => ("386", None),
        ("x86_64" | "x86-64" | "amd64", Some("v1")) => ("amd64", None),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", Some("8" | "v8" | "v8.0")) => ("arm64", None),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
        ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        ("powerpc64le", v) => ("ppc64le", v),
        ("loongarch64", v) => ("loong64", v),
        (other, v) => (other, v),
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn aliases_fold() {
        assert_eq!(p("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(p("aarch64").to_string(), "linux/arm64");
        assert_eq!(p("linux/arm64/v8").to_string(), "linux/arm64");
        assert_eq!(p("linux/arm").to_string(), "linux/arm/v7");
        assert_eq!(p("linux/armel").to_string(), "linux/arm/v6");
    }

    #[test]
    fn bad_platforms_are_refused() {
        for bad in [
            "",
            "/",
            "linux/",
            "linux/amd64/v2/x",
            "linux/am d64",
            "linux/../x/y",
        ] {
            assert!(Platform::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_older_variant_serves_and_a_newer_does_not() {
        assert_eq!(p("linux/arm/v7").rank(&p("linux/arm/v6")), Some(1));
        assert_eq!(p("linux/arm/v6").rank(&p("linux/arm/v7")), None);
        assert_eq!(p("linux/amd64").rank(&p("linux/amd64/v3")), None);
        assert_eq!(p("linux/amd64/v3").rank(&p("linux/amd64")), Some(2));
        assert_eq!(p("linux/amd64").rank(&p("linux/arm64")), None);
        assert_eq!(p("linux/amd64").rank(&p("windows/amd64")), None);
    }

    #[test]
    fn the_best_of_an_index_wins() {
        let index = [
            p("linux/arm/v5"),
            p("linux/arm/v7"),
            p("linux/arm/v6"),
            p("linux/amd64"),
        ];
        assert_eq!(p("linux/arm/v7").choose(index.iter().map(Some)), Some(1));
        assert_eq!(p("linux/arm/v6").choose(index.iter().map(Some)), Some(2));
        assert_eq!(p("linux/s390x").choose(index.iter().map(Some)), None);
        assert_eq!(
            p("linux/amd64").choose([None, Some(&index[3])].into_iter()),
            Some(1)
        );
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_normal_forms_are_stable(text in "\\PC{0,40}") {
            if let Ok(platform) = Platform::parse(&text) {
                prop_assert_eq!(platform.normalised(), platform.clone());
                prop_assert_eq!(platform.rank(&platform), Some(0));
            }
        }
    }
}
