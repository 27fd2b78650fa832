//! `--filter key=value`.

use std::str::FromStr;

/// One filter as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Before the `=`.
    pub key: String,
    /// Behind it.
    pub value: String,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok(Filter {
                key: key.trim().to_lowercase(),
                value: value.trim().to_owned(),
            }),
            _ => Err(format!("{text:?} is not of the form key=value")),
        }
    }
}

/// Whether labels fit a filter's `key` or `key=value`.
pub fn label_matches<'a>(wanted: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => label(key) == Some(value),
        None => label(wanted).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_equals_signs() {
        let filter: Filter = "label=a=b".parse().unwrap();
        assert_eq!((filter.key.as_str(), filter.value.as_str()), ("label", "a=b"));
        for bad in ["", "label", "=x"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad:?}");
        }
    }
}
