//! Every verb's `--help` against `tests/golden/help/`. `BERTH_GOLDEN=write` writes what is printed now; read the diff.

use std::fs;
use std::path::Path;
use std::process::Command;

use berth_tests::{Output, binary};

/// What `berth VERB --help` prints, at a width of its own.
fn help(verb: &[&str]) -> String {
    let output = Command::new(binary("berth"))
        .args(verb)
        .arg("--help")
        .env("COLUMNS", "100")
        .env_remove("BERTH_ROOT")
        .env_remove("BERTH_STATE")
        .output();
    Output::from(output.expect("start berth")).ok() + "\n"
}

/// The verbs a help text lists.
fn verbs(text: &str) -> Vec<String> {
    text.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_is_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/help");
    let mut texts = vec![("berth".to_owned(), help(&[]))];
    for verb in verbs(&texts[0].1) {
        let text = help(&[&verb]);
        for nested in verbs(&text) {
            texts.push((format!("{verb}-{nested}"), help(&[&verb, &nested])));
        }
        texts.push((verb, text));
    }
    assert!(texts.len() > 60, "the verbs are found in the help itself");
    if std::env::var_os("BERTH_GOLDEN").is_some_and(|value| value == "write") {
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("make the directory");
        for (name, text) in &texts {
            fs::write(directory.join(format!("{name}.txt")), text).expect("write");
        }
    }
    let mut recorded: Vec<_> = fs::read_dir(&directory)
        .expect("the golden files are in the repository")
        .flatten()
        .map(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .trim_end_matches(".txt")
                .to_owned()
        })
        .collect();
    recorded.sort();
    let mut printed: Vec<_> = texts.iter().map(|(name, _)| name.clone()).collect();
    printed.sort();
    assert_eq!(
        printed, recorded,
        "verbs came or went: BERTH_GOLDEN=write records them"
    );
    for (name, text) in &texts {
        let want = fs::read_to_string(directory.join(format!("{name}.txt"))).expect("read");
        assert!(
            *text == want,
            "the help of {name} is not as recorded; BERTH_GOLDEN=write records it.\n--- printed\n{text}--- recorded\n{want}"
        );
    }
}

/// A verb is told in the same words in the list and in its own help.
#[test]
fn help_says_what_the_verb_does() {
    let list = help(&[]);
    let lines = list.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (verb, about) = line.trim().split_once("  ").expect("a verb and what it does");
        assert_eq!(help(&[verb]).lines().next(), Some(about.trim()), "{verb}");
    }
}
