//! Dockerfile instructions applied to an image config (`import --change`).

use super::healthcheck;
use crate::config::{Empty, RunConfig};

/// Applies one instruction. `Err` says what is wrong with it.
pub(super) fn apply(config: &mut RunConfig, change: &str) -> Result<(), String> {
    let (word, rest) = change
        .trim()
        .split_once(char::is_whitespace)
        .unwrap_or((change.trim(), ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(format!("{word} has no argument"));
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(rest)?,
        "ENTRYPOINT" => config.entrypoint = command(rest)?,
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => rest.clone_into(&mut config.working_dir),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "ENV" => {
            for (key, value) in pairs(rest)? {
                let prefix = format!("{key}=");
                config.env.retain(|e| !e.starts_with(&prefix));
                config.env.push(format!("{prefix}{value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "VOLUME" => {
            let volumes = if rest.starts_with('[') {
                command(rest)?
            } else {
                words(rest)?
            };
            config.volumes.extend(volumes.into_iter().map(|v| (v, Empty {})));
        }
        "EXPOSE" => {
            for port in words(rest)? {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                if !matches!(protocol, "tcp" | "udp" | "sctp") || number.parse::<u16>().is_err() {
                    return Err(format!("EXPOSE {port:?} is not PORT or PORT/PROTOCOL"));
                }
                config
                    .exposed_ports
                    .insert(format!("{number}/{protocol}"), Empty {});
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck::parse(rest)?),
        // Kept for who builds on the image, as docker does.
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        other => {
            return Err(format!(
                "{other} changes no image config: it is an instruction of a build"
            ));
        }
    }
    Ok(())
}

/// `["a", "b"]`, or a shell command.
pub(super) fn command(text: &str) -> Result<Vec<String>, String> {
    if text.starts_with('[') {
        return serde_json::from_str(text).map_err(|e| format!("{text:?} is not a list of strings: {e}"));
    }
    Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

/// `A=1 B="2 3"`, or the old form `A 1`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    if let Some(first) = words.first()
        && !first.contains('=')
    {
        let value = text[first.len().min(text.len())..].trim();
        return Ok(vec![(first.clone(), value.to_owned())]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("{word:?} is not KEY=VALUE")),
        })
        .collect()
}

/// Words parted by blanks; quotes and backslashes protect them.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(q)) if c == q => quote = None,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("{text:?} has an open quote"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_config() {
        let mut config = RunConfig::default();
        for change in [
            r#"CMD ["nginx", "-g", "daemon off;"]"#,
            "ENTRYPOINT /start now",
            r#"ENV A=1 B="2 3""#,
            "env A 7 8",
            "EXPOSE 80 53/udp",
            "LABEL x=y",
            "VOLUME /a /b",
            "WORKDIR /srv",
            "USER 7:8",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --retries=2 CMD true",
            "ONBUILD RUN make",
        ] {
            apply(&mut config, change).unwrap();
        }
        assert_eq!(config.cmd, ["nginx", "-g", "daemon off;"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "/start now"]);
        assert_eq!(config.env, ["B=2 3", "A=7 8"]);
        assert_eq!(
            config.exposed_ports.keys().collect::<Vec<_>>(),
            ["53/udp", "80/tcp"]
        );
        assert_eq!((config.volumes.len(), config.labels.len()), (2, 1));
        assert_eq!(config.healthcheck.map(|check| check.retries), Some(2));
        assert_eq!(config.on_build, ["RUN make"]);
    }

    #[test]
    fn wrong_instructions_are_refused() {
        for change in [
            "",
            "CMD",
            "CMD [1]",
            "RUN x",
            "EXPOSE x",
            "EXPOSE 70000",
            "ENV =x",
            "LABEL \"a=b",
            "EXPOSE 1/icmp",
        ] {
            assert!(apply(&mut RunConfig::default(), change).is_err(), "{change:?}");
        }
    }
}
