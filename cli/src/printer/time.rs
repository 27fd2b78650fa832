//! Times and durations for people, in docker's words, and the points in time users type.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// `About a minute`, `3 hours`, `2 weeks`.
fn words(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `3 hours ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", words(now.as_second() - then.as_second()))
}

/// `2026-11-21 14:06:11 +0000 UTC`, on the user's clock, as Go prints times.
pub fn stamp(at: Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S %z %Z")
        .to_string()
}

/// `Up 3 hours`, `Exited (0) 2 days ago`.
pub fn status(
    state: &str,
    exit_code: i32,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    health: Option<&str>,
    now: Timestamp,
) -> String {
    let since = |then: Option<Timestamp>| words(then.map_or(0, |then| now.as_second() - then.as_second()));
    let health = match health {
        Some("starting") => " (health: starting)".to_owned(),
        Some(word @ ("healthy" | "unhealthy")) => format!(" ({word})"),
        _ => String::new(),
    };
    match state {
        "running" => format!("Up {}{health}", since(started)),
        "paused" => format!("Up {} (Paused)", since(started)),
        "restarting" => format!("Restarting ({exit_code}) {} ago", since(finished)),
        "exited" => format!("Exited ({exit_code}) {} ago", since(finished)),
        "removing" => "Removal In Progress".to_owned(),
        "dead" => "Dead".to_owned(),
        _ => "Created".to_owned(),
    }
}

/// What `--since` and `--until` take: RFC 3339, where a time without a zone is our own (`TZ`, else `/etc/localtime`), as docker
/// reads it; seconds since the epoch with a fraction; or a duration before now (`10m`, `1h30m`).
pub fn parse_point(text: &str) -> Result<SystemTime, String> {
    let bad =
        || format!("{text:?} is no time: want RFC 3339, seconds since the epoch, or a duration such as 10m");
    if let Ok(seconds) = text.parse::<f64>() {
        let span = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
        return UNIX_EPOCH.checked_add(span).ok_or_else(bad);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.into());
    }
    if let Ok(at) = text.parse::<jiff::civil::DateTime>() {
        // On a host that names none it is UTC, as in C.
        return at
            .to_zoned(jiff::tz::TimeZone::system())
            .map(|at| at.timestamp().into())
            .map_err(|_| bad());
    }
    let span = parse_duration(text).ok_or_else(bad)?;
    SystemTime::now().checked_sub(span).ok_or_else(bad)
}

/// Go's durations: `1h30m`, `1.5s`, `100ms`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let seconds = number.parse::<f64>().ok()? * scale;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_in_dockers_words() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3599, "59 minutes"),
            (3700, "About an hour"),
            (3 * 3600, "3 hours"),
            (3 * 86400, "3 days"),
            (30 * 86400, "4 weeks"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(words(seconds), expected);
        }
    }

    #[test]
    fn durations_and_points() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        for bad in ["", "5", "h", "1x", "1h5"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(
            parse_point("10.5").unwrap(),
            UNIX_EPOCH + Duration::from_millis(10_500)
        );
        assert_eq!(
            parse_point("1970-01-01T00:01:00Z").unwrap(),
            UNIX_EPOCH + Duration::from_secs(60)
        );
        for bad in ["", "yesterday", "-1", "1e300"] {
            assert!(parse_point(bad).is_err(), "{bad}");
        }
    }
}
