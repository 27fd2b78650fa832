//! `top`: the container's processes, read from /proc.

use crate::container::Verb;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::isolation::vm;
use crate::shim::{runtime_error, runtime_id, runtime_root};

/// A container's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// Column heads.
    pub titles: Vec<String>,
    /// A row a process.
    pub processes: Vec<Vec<String>>,
}

const DEFAULT: &str = "user,pid,ppid,stat,rss,comm,args";

impl Engine {
    /// The processes of a running container as the host sees them. `ps_args` is nothing or `-o a,b,c` with columns among
    /// user, pid, ppid, stat, rss, comm, args.
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
        let columns = match ps_args {
            [] => DEFAULT,
            [o, list] if o == "-o" => list,
            _ => {
                return Err(Error::Unsupported {
                    what: format!("ps arguments {:?}", ps_args.join(" ")),
                    why: "only -o with a list of columns".into(),
                });
            }
        };
        let columns: Vec<&str> = columns.split(',').collect();
        if let Some(odd) = columns.iter().find(|c| !DEFAULT.split(',').any(|d| d == **c)) {
            return Err(Error::Invalid {
                what: format!("column {odd:?}"),
                why: format!("the columns are {DEFAULT}"),
            });
        }
        let container = berth_runtime::Container::load(&runtime_root(&self.paths), &runtime_id(id)?)
            .map_err(|e| runtime_error(id, e))?;
        let pids = container.processes().map_err(|e| runtime_error(id, e))?;
        let processes = pids.into_iter().filter_map(|pid| row(pid, &columns)).collect();
        Ok(Top {
            titles: columns.iter().map(|c| c.to_uppercase()).collect(),
            processes,
        })
    }
}

/// None when it has ended meanwhile.
fn row(pid: i32, columns: &[&str]) -> Option<Vec<String>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|v| v.split_whitespace().next())
            .unwrap_or_default()
            .to_owned()
    };
    let args = || {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(&bytes)).replace('\0', " ");
        // A process names itself; a terminal must not obey it.
        let text: String = text
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        if text.is_empty() {
            format!("[{}]", field("Name"))
        } else {
            text
        }
    };
    Some(
        columns
            .iter()
            .map(|column| match *column {
                "user" => field("Uid"),
                "pid" => pid.to_string(),
                "ppid" => field("PPid"),
                "stat" => field("State"),
                "rss" => field("VmRSS"),
                "comm" => field("Name"),
                _ => args(),
            })
            .collect(),
    )
}
