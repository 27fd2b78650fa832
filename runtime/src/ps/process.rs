//! One process as /proc tells of it, and what of the host is needed to make sense of that.

use std::fs;

use jiff::Timestamp;

use super::observed::{Observed, ObservedProcess};

/// What all rows are measured against.
pub(super) struct Host {
    pub now: Timestamp,
    /// Seconds since boot.
    pub uptime: f64,
    /// Clock ticks in a second.
    pub ticks: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of a page.
    pub page: u64,
    /// Lines of `/etc/passwd` and `/etc/group`: names are the host's, as its ps would print them.
    passwd: String,
    group: String,
}

impl Host {
    pub(super) fn of(observed: &Observed) -> Self {
        Self {
            now: Timestamp::now(),
            uptime: observed
                .uptime
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
            ticks: rustix::param::clock_ticks_per_second().max(1),
            memory: observed.memory.max(1),
            page: rustix::param::page_size() as u64,
            passwd: fs::read_to_string("/etc/passwd").unwrap_or_default(),
            group: fs::read_to_string("/etc/group").unwrap_or_default(),
        }
    }

    /// A user's name, or the number of one without.
    pub(super) fn user(&self, uid: u32) -> String {
        name(&self.passwd, uid)
    }

    /// A group's name, or the number of one without.
    pub(super) fn group(&self, gid: u32) -> String {
        name(&self.group, gid)
    }
}

fn name(table: &str, id: u32) -> String {
    let entry = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    });
    entry.map_or_else(|| id.to_string(), str::to_owned)
}

/// `/proc/PID/{stat,status,cmdline}` (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
    pub name: String,
    /// Arguments parted by blanks; empty for a kernel thread or a zombie.
    pub arguments: String,
    pub state: char,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    pub terminal: i32,
    pub foreground: i32,
    /// Clock ticks in user and kernel mode.
    pub used: u64,
    pub priority: i64,
    pub nice: i64,
    pub threads: u64,
    /// Clock ticks after boot.
    pub started: u64,
    /// Bytes.
    pub size: u64,
    /// Pages.
    pub resident: u64,
}

impl Process {
    /// None of what no kernel says.
    pub(super) fn parse(observed: &ObservedProcess) -> Option<Self> {
        let ObservedProcess {
            pid,
            stat,
            status,
            arguments,
        } = observed;
        // The name stands in parentheses and may hold any of them itself.
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
        let count = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let small = |at: usize| i32::try_from(number(at)?).ok();
        let id = |key: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            // Real, effective, saved, of the file system: ps shows the effective one.
            line.split_ascii_whitespace().nth(1)?.parse().ok()
        };
        Some(Self {
            pid: *pid,
            uid: id("Uid")?,
            gid: id("Gid")?,
            name: shown(name),
            arguments: shown(arguments),
            state: fields.first()?.chars().next().filter(char::is_ascii_alphabetic)?,
            parent: small(1)?,
            group: small(2)?,
            session: small(3)?,
            terminal: small(4)?,
            foreground: small(5)?,
            used: count(11)?.saturating_add(count(12)?),
            priority: number(15)?,
            nice: number(16)?,
            threads: count(17)?,
            started: count(19)?,
            size: count(20)?,
            resident: count(21)?,
        })
    }
}

/// A process names itself; a terminal must not obey it.
fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat =
            "7 (a) b\u{1b}(c) S 1 7 7 34816 7 4194304 1 0 0 0 150 50 0 0 20 0 3 0 12345 1048576 256 1844";
        let status = "Name:\ta\nUid:\t1\t1000\t1\t1\nGid:\t2\t2000\t2\t2\n";
        let observed = |stat: &str| ObservedProcess {
            pid: 7,
            stat: stat.into(),
            status: status.into(),
            arguments: "/bin/x -a\n".into(),
        };
        let process = Process::parse(&observed(stat)).expect("it parses");
        assert_eq!(process.name, "a) b?(c");
        assert_eq!(process.arguments, "/bin/x -a?");
        assert_eq!((process.uid, process.gid, process.parent), (1000, 2000, 1));
        assert_eq!((process.used, process.nice, process.threads), (200, 0, 3));
        assert_eq!(
            (process.started, process.size, process.resident),
            (12345, 1 << 20, 256)
        );
        assert_eq!(Process::parse(&observed("7 (cut")), None);
    }

    #[test]
    fn our_own_process_is_read() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let observed = ObservedProcess::read(own, 3).expect("it is there");
        assert_eq!(observed.arguments.len(), 3);
        let process = Process::parse(&observed).expect("it parses");
        assert!(process.threads >= 1 && process.resident > 0 && !process.arguments.is_empty());
    }
}
