//! Words that end up in lines of `/etc/hosts` and `/etc/resolv.conf`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// The longest name there is (RFC 1035 §2.3.4).
const LENGTH_MAX: usize = 255;

/// A word that stays one word of one line: a host name, a search domain or a resolver option of the user's. Whatever is
/// written to those files of containers comes through here, from flags and from records alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word(String);

impl Word {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Word {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        // A comment would hide the rest of the line.
        let breaks = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '#' | ';');
        if text.is_empty() || text.len() > LENGTH_MAX || text.contains(breaks) {
            return Err(Error::Word(text));
        }
        Ok(Self(text))
    }
}

impl FromStr for Word {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.to_owned().try_into()
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_one_word() {
        for good in [
            "db",
            "db.example.com",
            ".",
            "ndots:2",
            "under_score",
            "::",
            "bücher.example",
        ] {
            assert_eq!(good.parse::<Word>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            " ",
            "a b",
            "a\nb",
            "a\t",
            "a\r",
            "a\0",
            "a\u{2028}b",
            "a\u{85}b",
            "a#b",
            ";",
            "\u{a0}",
        ] {
            assert!(bad.parse::<Word>().is_err(), "{bad:?}");
            assert!(
                serde_json::from_value::<Word>(bad.into()).is_err(),
                "{bad:?} in a record"
            );
        }
        assert!("x".repeat(256).parse::<Word>().is_err());
        let told = "a\nb".parse::<Word>().unwrap_err().to_string();
        assert!(told.contains(r#""a\nb""#), "{told}");
    }

    proptest! {
        #[test]
        fn a_word_is_one_word_of_one_line(text in any::<String>()) {
            if let Ok(word) = text.parse::<Word>() {
                let line = format!("search {word} next\n");
                prop_assert_eq!(line.lines().count(), 1);
                prop_assert_eq!(line.split_whitespace().nth(1), Some(text.as_str()));
                prop_assert_eq!(line.split([' ', '\t', '\n', '\x0b', '\x0c', '\r']).nth(1), Some(text.as_str()));
            }
        }
    }
}
