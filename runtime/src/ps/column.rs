//! The columns of ps(1): names, headings, and what stands in them.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::process::{Host, Process};

/// One column: its names, first the one that is told, its heading, and how to fill it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    names: &'static [&'static str],
    title: &'static str,
    value: fn(&Process, &Host) -> String,
}

macro_rules! column {
    ($($name:literal)|+, $title:literal, $value:expr) => {
        Column { names: &[$($name),+], title: $title, value: $value }
    };
}

static COLUMNS: &[Column] = &[
    column!("user" | "euser" | "uname", "USER", |p, host| host.user(p.uid)),
    column!("uid" | "euid", "UID", |p, _| p.uid.to_string()),
    column!("group" | "egroup", "GROUP", |p, host| host.group(p.gid)),
    column!("gid" | "egid", "GID", |p, _| p.gid.to_string()),
    column!("pid" | "tgid", "PID", |p, _| p.pid.to_string()),
    column!("ppid", "PPID", |p, _| p.parent.to_string()),
    column!("pgid" | "pgrp", "PGID", |p, _| p.group.to_string()),
    column!("sid" | "sess" | "session", "SID", |p, _| p.session.to_string()),
    column!("c", "C", |p, host| (share(p, host) / 10).to_string()),
    column!("%cpu" | "pcpu", "%CPU", |p, host| tenths(share(p, host))),
    column!("%mem" | "pmem", "%MEM", |p, host| {
        tenths(p.resident.saturating_mul(host.page).saturating_mul(1000) / host.memory)
    }),
    column!("vsz" | "vsize", "VSZ", |p, _| (p.size >> 10).to_string()),
    column!("rss" | "rssize" | "rsz", "RSS", |p, host| {
        (p.resident.saturating_mul(host.page) >> 10).to_string()
    }),
    column!("tname" | "tty" | "tt", "TTY", |p, _| terminal(p.terminal)),
    column!("stat", "STAT", |p, _| flags(p)),
    column!("s" | "state", "S", |p, _| p.state.to_string()),
    column!("ni" | "nice", "NI", |p, _| p.nice.to_string()),
    column!("pri", "PRI", |p, _| p.priority.to_string()),
    column!("nlwp" | "thcount", "NLWP", |p, _| p.threads.to_string()),
    column!("stime" | "start" | "start_time", "STIME", started),
    column!("etime", "ELAPSED", |p, host| long(age(p, host))),
    column!("time" | "cputime", "TIME", |p, host| long_hours(
        p.used / host.ticks
    )),
    column!("bsdtime", "TIME", |p, host| {
        let seconds = p.used / host.ticks;
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }),
    column!("comm" | "ucmd" | "ucomm", "COMMAND", |p, _| p.name.clone()),
    column!("cmd", "CMD", |p, _| command(p)),
    column!("args" | "command", "COMMAND", |p, _| command(p)),
];

/// The name of each column, for messages.
pub(super) fn names() -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|column| column.names[0]).collect();
    names.join(",")
}

impl Column {
    /// The column that ps knows by this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        COLUMNS
            .iter()
            .find(|column| column.names.contains(&name))
            .copied()
    }

    pub(super) fn title(self) -> &'static str {
        self.title
    }

    pub(super) fn of(self, process: &Process, host: &Host) -> String {
        (self.value)(process, host)
    }
}

/// Seconds since it started.
fn age(p: &Process, host: &Host) -> u64 {
    let started = Duration::from_secs(p.started / host.ticks);
    let uptime = Duration::try_from_secs_f64(host.uptime).unwrap_or_default();
    uptime.saturating_sub(started).as_secs()
}

/// Thousandths of one processor since it started.
fn share(p: &Process, host: &Host) -> u64 {
    (p.used.saturating_mul(1000) / host.ticks)
        .checked_div(age(p, host))
        .unwrap_or(0)
}

fn tenths(thousandths: u64) -> String {
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

/// `02:15:01`, of more than a day `3-02:15:01`.
fn long_hours(seconds: u64) -> String {
    let clock = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    );
    match seconds / 86400 {
        0 => clock,
        days => format!("{days}-{clock}"),
    }
}

/// As [`long_hours`], without hours where there are none.
fn long(seconds: u64) -> String {
    if seconds < 3600 {
        format!("{:02}:{:02}", seconds / 60, seconds % 60)
    } else {
        long_hours(seconds)
    }
}

/// The time of day it started, the day if that was not today.
fn started(p: &Process, host: &Host) -> String {
    let zone = TimeZone::system();
    let now = host.now.to_zoned(zone.clone());
    let seconds = i64::try_from(age(p, host)).unwrap_or(i64::MAX);
    let Ok(then) = host.now.checked_sub(jiff::SignedDuration::from_secs(seconds)) else {
        return "?".to_owned();
    };
    let then = then.to_zoned(zone);
    let form = if then.date() == now.date() {
        "%H:%M"
    } else {
        "%b%d"
    };
    then.strftime(form).to_string()
}

/// A device number as the kernel packs it (proc(5), tty_nr).
fn terminal(number: i32) -> String {
    let number = number.cast_unsigned();
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match major {
        0 => "?".to_owned(),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        136..144 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => format!("{major}:{minor}"),
    }
}

fn flags(p: &Process) -> String {
    let mut text = p.state.to_string();
    for (holds, letter) in [
        (p.nice < 0, '<'),
        (p.nice > 0, 'N'),
        (p.session == p.pid, 's'),
        (p.threads > 1, 'l'),
        (p.terminal != 0 && p.foreground == p.group, '+'),
    ] {
        if holds {
            text.push(letter);
        }
    }
    text
}

fn command(p: &Process) -> String {
    match (p.arguments.as_str(), p.state) {
        ("", 'Z') => format!("[{}] <defunct>", p.name),
        ("", _) => format!("[{}]", p.name),
        (arguments, _) => arguments.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_two_columns() {
        let mut names: Vec<&str> = COLUMNS.iter().flat_map(|column| column.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn times_shares_and_terminals_as_ps_writes_them() {
        assert_eq!(long_hours(3 * 86400 + 8101), "3-02:15:01");
        assert_eq!((long(59).as_str(), long(3600).as_str()), ("00:59", "01:00:00"));
        assert_eq!(tenths(1234), "123.4");
        for (number, name) in [
            (0, "?"),
            (34816, "pts/0"),
            (34818, "pts/2"),
            (0x0401, "tty1"),
            (0x0440, "ttyS0"),
        ] {
            assert_eq!(terminal(number), name);
        }
    }
}
