//! When to try again, and how long to wait.

use std::time::Duration;

use super::{Config, Error};
use crate::content::atomic::random_u64;

/// However long a registry asks to be left alone, a person is waiting.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Counts failures in a row.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    left: u32,
    failures: u32,
    backoff: Duration,
    retries: u32,
}

impl Retry {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            left: config.retries,
            failures: 0,
            backoff: config.backoff,
            retries: config.retries,
        }
    }

    /// Something moved, so patience is restored.
    pub fn progressed(&mut self) {
        self.left = self.retries;
        self.failures = 0;
    }

    /// How long to wait before trying again, or the error if it is no use.
    ///
    /// # Errors
    /// `error` itself.
    pub fn after(&mut self, error: Error) -> Result<(Duration, Error), Error> {
        if self.left == 0 || !error.is_transient() {
            return Err(error);
        }
        self.left -= 1;
        let doubled = self
            .backoff
            .saturating_mul(1 << self.failures.min(10))
            .min(WAIT_MAX);
        self.failures += 1;
        // Half fixed, half random: many clients thrown off together do not come back together.
        let span = u64::try_from(doubled.as_millis() / 2).unwrap_or(u64::MAX);
        let jittered = doubled / 2 + Duration::from_millis(random_u64() % (span + 1));
        let wait = match &error {
            Error::Status {
                retry_after: Some(asked),
                ..
            } => jittered.max((*asked).min(WAIT_MAX)),
            _ => jittered,
        };
        Ok((wait, error))
    }
}

/// A Retry-After header: seconds or an HTTP date (RFC 9110 §10.2.3).
#[must_use]
pub fn parse_retry_after(header: &str) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(header)
        .ok()?;
    Duration::try_from(at.duration_since(jiff::Timestamp::now())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, retry_after: Option<Duration>) -> Error {
        Error::Status {
            url: "u".into(),
            status,
            detail: String::new(),
            retry_after,
        }
    }

    #[test]
    fn waits_grow_end_and_heed_the_registry() {
        let config = Config {
            retries: 3,
            backoff: Duration::from_millis(100),
            ..Config::default()
        };
        let mut retry = Retry::new(&config);
        for expected in [100, 200, 400] {
            let (wait, _) = retry.after(status(503, None)).unwrap();
            assert!(
                (expected / 2..=expected).contains(&u64::try_from(wait.as_millis()).unwrap()),
                "{wait:?}"
            );
        }
        assert!(retry.after(status(503, None)).is_err());
        retry.progressed();
        let asked = Duration::from_secs(7);
        assert_eq!(retry.after(status(429, Some(asked))).unwrap().0, asked);
        assert_eq!(
            retry
                .after(status(429, Some(Duration::from_secs(99_999))))
                .unwrap()
                .0,
            WAIT_MAX
        );
        assert!(retry.after(status(404, None)).is_err(), "a 404 is final");
    }

    #[test]
    fn retry_after_has_two_forms() {
        assert_eq!(parse_retry_after(" 3 "), Some(Duration::from_secs(3)));
        assert!(parse_retry_after("Fri, 31 Dec 2100 23:59:59 GMT").is_some());
        assert_eq!(parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(parse_retry_after("soon"), None);
    }
}
