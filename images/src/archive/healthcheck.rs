//! `HEALTHCHECK [--interval=… …] CMD …` or `HEALTHCHECK NONE`, as in a Dockerfile.

use jiff::SignedDuration;

use super::changes::command;
use crate::config::Healthcheck;

/// Parses what stands behind the word. `Err` says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text.trim();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, behind) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag
            .split_once('=')
            .ok_or_else(|| format!("--{flag} is not --NAME=VALUE"))?;
        let place = match name {
            "interval" => &mut check.interval,
            "timeout" => &mut check.timeout,
            "start-period" => &mut check.start_period,
            "start-interval" => &mut check.start_interval,
            "retries" => &mut check.retries,
            _ => return Err(format!("--{name} is no flag of HEALTHCHECK")),
        };
        *place = if name == "retries" {
            value.parse().ok().filter(|count: &i64| *count >= 0)
        } else {
            nanoseconds(value)
        }
        .ok_or_else(|| format!("--{name}={value}: expected a count, or a time such as 30s"))?;
        rest = behind.trim_start();
    }
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = rest.trim();
    check.test = match (word.to_ascii_uppercase().as_str(), rest) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", "") => return Err("CMD has no argument".to_owned()),
        ("CMD", list) if list.starts_with('[') => {
            let mut words = command(list)?;
            words.insert(0, "CMD".to_owned());
            words
        }
        ("CMD", line) => vec!["CMD-SHELL".to_owned(), line.to_owned()],
        _ => return Err(format!("expected CMD or NONE, not {word:?}")),
    };
    Ok(check)
}

/// `1m30s`; at least a millisecond, as docker has it, or 0 for the default.
fn nanoseconds(text: &str) -> Option<i64> {
    let duration: SignedDuration = text.parse().ok()?;
    let nanoseconds = i64::try_from(duration.as_nanos()).ok()?;
    (nanoseconds == 0 || nanoseconds >= 1_000_000).then_some(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_command_and_none() {
        let check =
            parse("--interval=1m30s --timeout=500ms --retries=4 CMD curl -f localhost || exit 1").unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f localhost || exit 1"]);
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (90_000_000_000, 500_000_000, 4)
        );
        assert_eq!(parse(r#"cmd ["a", "b"]"#).unwrap().test, ["CMD", "a", "b"]);
        assert_eq!(parse("NONE").unwrap().test, ["NONE"]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "CMD",
            "NONE x",
            "true",
            "--interval CMD true",
            "--interval=x CMD true",
            "--interval=1us CMD true",
            "--retries=-1 CMD true",
            "--nonesuch=1 CMD true",
            "CMD [1]",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
