//! Which events a reader asked for.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Error, Event, Kind};

/// A span of time and what must hold for an event to be shown.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Show what happened at or after this; none: only what happens from now on.
    pub since: Option<SystemTime>,
    /// Stop here; none: follow for ever.
    pub until: Option<SystemTime>,
    /// Filters of one key are alternatives, filters of different keys must all hold.
    pub filters: Vec<Filter>,
}

/// One `key=value` of `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Container by name, id or the beginning of the id.
    Container(String),
    /// The action.
    Event(String),
    /// Image name, of an image event or of a container's image.
    Image(String),
    /// `key` or `key=value`.
    Label(String),
    /// Network by name.
    Network(String),
    /// `local`.
    Scope(String),
    /// Kind of object.
    Type(String),
    /// Volume by name.
    Volume(String),
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(s: &str) -> Result<Filter, Error> {
        let unknown = || Error::Filter(s.to_owned());
        let (key, value) = s.split_once('=').ok_or_else(unknown)?;
        let make = match key.trim() {
            "container" => Filter::Container,
            "event" => Filter::Event,
            "image" => Filter::Image,
            "label" => Filter::Label,
            "network" => Filter::Network,
            "scope" => Filter::Scope,
            "type" => Filter::Type,
            "volume" => Filter::Volume,
            _ => return Err(unknown()),
        };
        Ok(make(value.trim().to_owned()))
    }
}

impl Filter {
    fn matches(&self, event: &Event) -> bool {
        let id = event.actor.id.as_str();
        let attribute = |key: &str| event.actor.attributes.get(key).map(String::as_str);
        let named = |value: &str| id == value || attribute("name") == Some(value);
        match self {
            Filter::Container(v) => {
                (event.kind == Kind::Container && (named(v) || (!v.is_empty() && id.starts_with(v.as_str()))))
                    || attribute("container") == Some(v)
            }
            Filter::Event(v) => {
                // docker: `exec_create: CMD` and `health_status: healthy` are found by their first word.
                event.action == *v || event.action.split(':').next() == Some(v)
            }
            Filter::Image(v) => (event.kind == Kind::Image && named(v)) || attribute("image") == Some(v),
            Filter::Label(v) => match v.split_once('=') {
                Some((key, value)) => attribute(key) == Some(value),
                None => attribute(v).is_some(),
            },
            Filter::Network(v) => event.kind == Kind::Network && named(v),
            Filter::Scope(v) => event.scope == *v,
            Filter::Type(v) => event.kind.as_str() == v,
            Filter::Volume(v) => event.kind == Kind::Volume && named(v),
        }
    }
}

impl Query {
    /// Whether the event is within the span and passes the filters.
    pub fn matches(&self, event: &Event) -> bool {
        let at = UNIX_EPOCH + Duration::from_nanos(event.time_nano);
        if self.since.is_some_and(|since| at < since) || self.until.is_some_and(|until| at > until) {
            return false;
        }
        self.filters.iter().all(|filter| {
            let key = std::mem::discriminant(filter);
            self.filters
                .iter()
                .any(|other| std::mem::discriminant(other) == key && other.matches(event))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(filters: &[&str]) -> Query {
        Query {
            filters: filters.iter().map(|f| f.parse().unwrap()).collect(),
            ..Query::default()
        }
    }

    #[test]
    fn same_keys_are_alternatives_and_different_keys_add_up() {
        let event = Event::new(Kind::Container, "die", "abcdef")
            .with("name", "web")
            .with("image", "nginx");
        for (filters, expected) in [
            (&["event=die", "event=start"][..], true),
            (&["event=start"], false),
            (&["event=die", "container=web"], true),
            (&["event=die", "container=db"], false),
            (&["container=abc"], true),
            (&["image=nginx", "type=container"], true),
            (&["type=image"], false),
            (&["label=name"], true),
            (&["label=name=db"], false),
        ] {
            assert_eq!(query(filters).matches(&event), expected, "{filters:?}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        for bad in ["", "x", "daemon", "plugin=x"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad:?}");
        }
    }
}
