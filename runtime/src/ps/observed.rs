//! What a kernel tells of processes, to be made sense of where another one runs.

use std::fs;

use serde::{Deserialize, Serialize};

/// Processes at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// `/proc/uptime`.
    pub uptime: String,
    /// Bytes of memory there are.
    pub memory: u64,
    /// Those that had not ended.
    pub processes: Vec<ObservedProcess>,
}

/// `/proc/PID/{stat,status,cmdline}` (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedProcess {
    /// As its kernel counts.
    pub pid: i32,
    /// The line.
    pub stat: String,
    /// Who it is: the lines `Uid` and `Gid`.
    pub status: String,
    /// Its arguments parted by blanks, without control characters.
    pub arguments: String,
}

impl Observed {
    /// Looks at these; arguments are cut after so many characters.
    #[must_use]
    pub fn of(pids: &[i32], arguments_max: usize) -> Observed {
        let info = rustix::system::sysinfo();
        Observed {
            uptime: fs::read_to_string("/proc/uptime").unwrap_or_default(),
            memory: (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)),
            processes: pids
                .iter()
                .filter_map(|pid| ObservedProcess::read(*pid, arguments_max))
                .collect(),
        }
    }
}

impl ObservedProcess {
    /// None when it has ended meanwhile.
    pub(super) fn read(pid: i32, arguments_max: usize) -> Option<ObservedProcess> {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
        let text = |file: &str| Some(String::from_utf8_lossy(&read(file)?).into_owned());
        let status = text("status")?;
        let who = status
            .lines()
            .filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"));
        let arguments = read("cmdline").unwrap_or_default();
        let arguments = arguments.strip_suffix(b"\0").unwrap_or(&arguments);
        Some(ObservedProcess {
            pid,
            stat: text("stat")?,
            status: who.collect::<Vec<_>>().join("\n"),
            arguments: String::from_utf8_lossy(arguments)
                .chars()
                .take(arguments_max)
                .map(|c| if c == '\0' { ' ' } else { c })
                .collect(),
        })
    }
}
