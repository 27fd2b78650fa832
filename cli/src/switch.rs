//! Flags that are on or off, as docker's flag library reads them: `--rm`, `--rm=true`, `-it=false`; the last one counts.

use clap::{Arg, ArgAction, Command};

/// Lets every switch of a verb take a value behind `=`.
pub fn take_values(command: Command) -> Command {
    command.mut_args(|arg| {
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            switch(arg)
        } else {
            arg
        }
    })
}

fn switch(arg: Arg) -> Arg {
    let arg = arg
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(parse);
    if arg.get_default_values().is_empty() {
        arg.default_value("false")
    } else {
        arg
    }
}

/// The words Go's `strconv.ParseBool` takes.
pub fn parse(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(words: &[&str]) -> [bool; 3] {
        let switch = |name| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let command = Command::new("x")
            .args([
                switch("interactive").short('i'),
                switch("tty").short('t'),
                switch("rm"),
            ])
            .args_override_self(true);
        let matches = take_values(command).try_get_matches_from([&["x"], words].concat());
        let matches = matches.unwrap_or_else(|e| panic!("{words:?}: {e}"));
        ["interactive", "tty", "rm"].map(|name| *matches.get_one(name).expect("it has a default"))
    }

    #[test]
    fn a_switch_has_a_value_only_behind_an_equals_sign() {
        assert_eq!(read(&[]), [false, false, false]);
        assert_eq!(read(&["-it", "--rm"]), [true, true, true]);
        assert_eq!(read(&["-it=false", "--rm=1"]), [true, false, true]);
        assert_eq!(read(&["-i=true", "--tty=F"]), [true, false, false]);
    }

    #[test]
    fn the_last_one_counts() {
        assert_eq!(
            read(&["--rm", "--rm=false", "-t=false", "-t"]),
            [false, true, false]
        );
        assert_eq!(read(&["--rm", "--rm"]), [false, false, true]);
    }

    #[test]
    fn one_that_is_on_by_itself_can_be_switched_off() {
        let proxy = Arg::new("proxy")
            .long("proxy")
            .action(ArgAction::SetTrue)
            .default_value("true");
        let command = take_values(Command::new("x").arg(proxy));
        for (words, on) in [(&["x"][..], true), (&["x", "--proxy=false"], false)] {
            let matches = command.clone().try_get_matches_from(words).expect("it is a flag");
            assert_eq!(matches.get_one("proxy"), Some(&on), "{words:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for words in [["x", "--rm=maybe"], ["x", "--rm="]] {
            let command = Command::new("x").arg(Arg::new("rm").long("rm").action(ArgAction::SetTrue));
            assert!(
                take_values(command).try_get_matches_from(words).is_err(),
                "{words:?}"
            );
        }
    }
}
