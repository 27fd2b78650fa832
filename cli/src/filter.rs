//! `--filter key=value`.

use std::str::FromStr;
use std::time::SystemTime;

use jiff::Timestamp;

use crate::failure::{Failure, Result};
use crate::printer;

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

/// Which objects a prune may remove: `until=TIME`, `label=…`, `label!=…`, all of which must hold.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    until: Option<SystemTime>,
    labels: Vec<String>,
    not_labels: Vec<String>,
}

impl PruneFilter {
    /// Reads the filters of one command. Volumes do not know when they were used last, so they take no `until`.
    pub fn new(filters: &[Filter], takes_until: bool) -> Result<Self> {
        let mut read = Self::default();
        for Filter { key, value } in filters {
            match key.as_str() {
                "until" if takes_until => {
                    read.until = Some(printer::parse_point(value).map_err(Failure::new)?);
                }
                "label" => read.labels.push(value.clone()),
                "label!" => read.not_labels.push(value.clone()),
                other => {
                    let known = if takes_until {
                        "until, label or label!"
                    } else {
                        "label or label!"
                    };
                    let known = format!("use {known}");
                    return Err(Failure::unsupported(&format!("filter {other}"), &known));
                }
            }
        }
        Ok(read)
    }

    /// Whether an object of this age and these labels may go. One that does not know its age is as old as can be.
    pub fn fits<'a>(&self, created: Option<Timestamp>, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let created = created.map_or(SystemTime::UNIX_EPOCH, SystemTime::from);
        self.until.is_none_or(|until| created < until)
            && self.labels.iter().all(|wanted| label_matches(wanted, &label))
            && !self.not_labels.iter().any(|wanted| label_matches(wanted, &label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prune_s_filters_must_all_hold() {
        let read = |texts: &[&str], takes_until| {
            let filters: Vec<Filter> = texts.iter().map(|text| text.parse().unwrap()).collect();
            PruneFilter::new(&filters, takes_until)
        };
        let (old, now) = (Some(Timestamp::UNIX_EPOCH), Some(Timestamp::now()));
        let label = |key: &str| (key == "a").then_some("b");
        assert!(read(&[], true).unwrap().fits(now, label));
        let until = read(&["until=1h"], true).unwrap();
        assert!(until.fits(old, label) && until.fits(None, label) && !until.fits(now, label));
        for (filters, fits) in [
            (&["label=a"][..], true),
            (&["label=a=c"], false),
            (&["label!=a"], false),
            (&["label!=a=c"], true),
            (&["label=a", "label!=z", "until=0s"], true),
        ] {
            assert_eq!(read(filters, true).unwrap().fits(old, label), fits, "{filters:?}");
        }
        for (filter, takes_until) in [("until=1h", false), ("name=x", true), ("until=x", true)] {
            assert!(read(&[filter], takes_until).is_err(), "{filter}");
        }
    }

    #[test]
    fn a_value_may_hold_equals_signs() {
        let filter: Filter = "label=a=b".parse().unwrap();
        assert_eq!((filter.key.as_str(), filter.value.as_str()), ("label", "a=b"));
        for bad in ["", "label", "=x"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad:?}");
        }
    }
}
