//! `top`: the container's processes as ps(1) shows them, read from /proc; no program is run.

mod column;
mod process;

use crate::container::Verb;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::isolation::vm;
use crate::shim::{runtime_error, runtime_id, runtime_root};
use column::Column;
use process::{Host, Process};

/// A container's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// Column heads.
    pub titles: Vec<String>,
    /// A row a process.
    pub processes: Vec<Vec<String>>,
}

/// What `ps -ef` shows, docker's default.
const FULL: &str = "user=UID,pid,ppid,c,stime,tname,time,cmd";
/// What `ps aux` shows.
const USER: &str = "user,pid,%cpu,%mem,vsz,rss,tname,stat,start=START,bsdtime,args";

impl Engine {
    /// The processes of a running container as the host sees them. `ps_args` is what `ps` would be given: nothing, `-ef`, `aux`,
    /// or `-o` with columns, each optionally with a heading behind `=`.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless it runs, [`Error::Unsupported`] for other arguments, [`Error::Invalid`] for an unknown column.
    pub fn top(&self, id: &ContainerId, ps_args: &[String]) -> Result<Top> {
        vm::refuse(&self.config(id)?, "top")?;
        let state = self.state(id)?;
        if !state.status.allows(Verb::Kill) {
            let name = self.config(id)?.name.to_string();
            return Err(Error::Wrong {
                verb: "list the processes of",
                name,
                status: state.status,
            });
        }
        let columns = columns(ps_args)?;
        let container = berth_runtime::Container::load(&runtime_root(&self.paths), &runtime_id(id)?)
            .map_err(|e| runtime_error(id, e))?;
        let pids = container.processes().map_err(|e| runtime_error(id, e))?;
        let host = Host::now();
        // One that has ended meanwhile has no row.
        let processes = pids.into_iter().filter_map(Process::read);
        Ok(Top {
            titles: columns.iter().map(|(_, title)| title.clone()).collect(),
            processes: processes
                .map(|process| {
                    columns
                        .iter()
                        .map(|(column, _)| column.of(&process, &host))
                        .collect()
                })
                .collect(),
        })
    }
}

/// The columns that ps would show with these arguments, with their headings.
fn columns(ps_args: &[String]) -> Result<Vec<(Column, String)>> {
    let mut lists: Vec<&str> = Vec::new();
    let mut layout = FULL;
    let mut words = ps_args.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let unsupported = || Error::Unsupported {
            what: format!("ps arguments {:?}", ps_args.join(" ")),
            why: "they are -ef, aux, or -o with a list of columns".into(),
        };
        let letters = word.strip_prefix('-').unwrap_or(word);
        let (letters, list) = match letters.split_once('o') {
            Some((letters, "")) => (letters, Some(words.next().ok_or_else(unsupported)?)),
            Some((letters, list)) => (letters, Some(list)),
            None => (letters, None),
        };
        for letter in letters.chars() {
            match letter {
                // Which processes there are is the container's to say.
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
    lists.iter().flat_map(|list| list.split(',')).map(one).collect()
}

/// `name` or `name=HEADING`.
fn one(text: &str) -> Result<(Column, String)> {
    let (name, title) = match text.split_once('=') {
        Some((name, title)) => (name, Some(title)),
        None => (text, None),
    };
    let column = Column::named(name).ok_or_else(|| Error::Invalid {
        what: format!("column {name:?}"),
        why: format!("the columns are {}", column::names()),
    })?;
    Ok((column, title.unwrap_or(column.title()).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn titles(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let columns = columns(&words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
        columns
            .into_iter()
            .map(|(_, title)| title)
            .collect::<Vec<_>>()
            .join(" ")
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
            assert!(columns(&words).is_err(), "{words:?}");
        }
    }
}
