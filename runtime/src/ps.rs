//! Processes as ps(1) shows them, read from /proc; no program is run.
//!
//! Which processes there are is the container's to say; arguments of ps choose the columns. Users and groups have the host's names.

mod column;
mod observed;
mod process;

use column::Column;
pub use observed::{Observed, ObservedProcess};
use process::{Host, Process};

/// What `ps -ef` shows.
const FULL: &str = "user=UID,pid,ppid,c,stime,tname,time,cmd";
/// What `ps aux` shows.
const USER: &str = "user,pid,%cpu,%mem,vsz,rss,tname,stat,start=START,bsdtime,args";

/// Arguments of ps that are not understood.
#[derive(Debug, thiserror::Error)]
pub enum BadArguments {
    /// They choose processes, sort or print otherwise.
    #[error("ps arguments {0:?} are not supported: they are -ef, aux, or -o with a list of columns")]
    Unsupported(String),
    /// A column that is not there.
    #[error("column {0:?} is not there: the columns are {names}", names = column::names())]
    NoColumn(String),
}

/// Columns with their headings.
#[derive(Debug)]
pub struct Layout(Vec<(Column, String)>);

impl Layout {
    /// What ps would show with these arguments: with none, as with `-ef`; `aux`; or `-o` with columns, each optionally with a
    /// heading behind `=`.
    ///
    /// # Errors
    ///
    /// [`BadArguments`] for anything else.
    pub fn parse(arguments: &[String]) -> Result<Self, BadArguments> {
        let mut lists: Vec<&str> = Vec::new();
        let mut layout = FULL;
        let mut words = arguments.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let unsupported = || BadArguments::Unsupported(arguments.join(" "));
            let letters = word.strip_prefix('-').unwrap_or(word);
            let (letters, list) = match letters.split_once('o') {
                Some((letters, "")) => (letters, Some(words.next().ok_or_else(unsupported)?)),
                Some((letters, list)) => (letters, Some(list)),
                None => (letters, None),
            };
            for letter in letters.chars() {
                match letter {
                    'a' | 'A' | 'e' | 'x' | 'w' => {}
                    'f' => layout = FULL,
                    'u' => layout = USER,
                    _ => return Err(unsupported()),
                }
            }
            lists.extend(list);
        }
        if lists.is_empty() {
            lists.push(layout);
        }
        let columns = lists.iter().flat_map(|list| list.split(',')).map(column);
        Ok(Self(columns.collect::<Result<_, _>>()?))
    }

    /// The headings.
    #[must_use]
    pub fn titles(&self) -> Vec<String> {
        self.0.iter().map(|(_, title)| title.clone()).collect()
    }

    /// A row a process; one that has ended meanwhile has none.
    #[must_use]
    pub fn rows(&self, pids: &[i32]) -> Vec<Vec<String>> {
        self.rows_of(&Observed::of(pids, usize::MAX))
    }

    /// The same of processes that were observed elsewhere; what makes no sense has no row.
    #[must_use]
    pub fn rows_of(&self, observed: &Observed) -> Vec<Vec<String>> {
        let host = Host::of(observed);
        let processes = observed.processes.iter().filter_map(Process::parse);
        processes
            .map(|process| {
                self.0
                    .iter()
                    .map(|(column, _)| column.of(&process, &host))
                    .collect()
            })
            .collect()
    }
}

/// `name` or `name=HEADING`.
fn column(text: &str) -> Result<(Column, String), BadArguments> {
    let (name, title) = match text.split_once('=') {
        Some((name, title)) => (name, Some(title)),
        None => (text, None),
    };
    let column = Column::named(name).ok_or_else(|| BadArguments::NoColumn(name.to_owned()))?;
    Ok((column, title.unwrap_or(column.title()).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn titles(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let layout = Layout::parse(&words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
        layout.titles().join(" ")
    }

    #[test]
    fn arguments_mean_what_ps_makes_of_them() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        let user = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        for (words, expected) in [
            (&[][..], full),
            (&["-ef"], full),
            (&["ax", "-f"], full),
            (&["aux"], user),
            (&["-aux"], user),
            (&["-o", "pid,comm"], "PID COMMAND"),
            (&["-eo", "pid", "-o", "args=WHAT"], "PID WHAT"),
            (&["axo", "uid,gid"], "UID GID"),
            (&["-opid"], "PID"),
        ] {
            assert_eq!(titles(words), expected, "{words:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for words in [
            &["-o"][..],
            &["-o", ""],
            &["-o", "nonesuch"],
            &["--sort", "pid"],
            &["-p", "1"],
        ] {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            assert!(Layout::parse(&words).is_err(), "{words:?}");
        }
    }
}
