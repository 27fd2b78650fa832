//! `exec`.

use std::path::PathBuf;
use std::process::ExitCode;

use berth_runtime::bundle::{Bundle, parse_with_capabilities};
use berth_runtime::{Console, ExecOptions, StateRoot, Stdio};
use clap::Args;
use oci_spec::runtime::Process;
use serde_json::{Value, json};

use super::foreground::{Foreground, preserved};
use super::{Failure, Outcome, load};
use crate::report::Report;

#[derive(Args)]
pub struct ExecArgs {
    /// Unix socket that receives the terminal's master
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long)]
    pub cwd: Option<String>,
    /// Add a variable, KEY=value
    #[arg(long, short)]
    pub env: Vec<String>,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// UID[:GID]
    #[arg(long, short)]
    pub user: Option<String>,
    /// Add a supplementary group
    #[arg(long, short = 'g')]
    pub additional_gids: Vec<u32>,
    /// File with the process as JSON, instead of the flags
    #[arg(long, short)]
    pub process: Option<PathBuf>,
    /// Return once the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the pid to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long)]
    pub process_label: Option<String>,
    /// AppArmor profile
    #[arg(long)]
    pub apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability
    #[arg(long, short)]
    pub cap: Vec<String>,
    /// Pass this many descriptors from 3 on
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Cgroup below the container's
    #[arg(long)]
    pub cgroup: Option<String>,
    /// Also in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// Failures of exec have a code no program of the container's is likely to use.
const EXEC_FAILED: u8 = 255;

pub fn exec(root: &StateRoot, args: ExecArgs, report: &Report) -> Outcome {
    run(root, args, report).map_err(|failure| Failure {
        code: EXEC_FAILED,
        ..failure
    })
}

fn run(root: &StateRoot, args: ExecArgs, report: &Report) -> Outcome {
    let container = load(root, &args.id)?;
    let (process, warnings) = process(&args, &container.record().bundle)?;
    report.warn(&warnings);
    let terminal = process.terminal().unwrap_or(false);
    let console = match args.console_socket {
        Some(path) => Console::Socket(path),
        None if terminal && !args.detach => Console::Receive,
        None => Console::None,
    };
    let options = ExecOptions {
        stdio: Stdio::Inherit,
        console,
        pid_file: args.pid_file,
        preserve_fds: preserved(args.preserve_fds)?,
        ignore_paused: args.ignore_paused,
        cgroup: args.cgroup.filter(|c| !c.is_empty()),
        seccomp_cache: Some(super::create::cache(root)),
        patience: None,
    };
    let foreground = if args.detach {
        None
    } else {
        Some(Foreground::prepare()?)
    };
    let started = container.exec(&process, options)?;
    report.warn(&started.warnings);
    match foreground {
        Some(foreground) => foreground.wait(started.pidfd, started.console),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The container's own process with what the flags change, as runc does it.
fn process(args: &ExecArgs, bundle: &std::path::Path) -> Result<(Process, Vec<String>), Failure> {
    if let Some(path) = &args.process {
        return Ok(parse_with_capabilities(path, "/capabilities")?);
    }
    if args.args.is_empty() {
        return Err(Failure::new("exec needs a program to run"));
    }
    let base = Bundle::open(bundle)?.spec.process().clone().unwrap_or_default();
    let mut value = serde_json::to_value(&base).map_err(|e| Failure::new(e.to_string()))?;
    value["args"] = json!(args.args);
    value["terminal"] = json!(args.tty);
    if let Some(cwd) = &args.cwd {
        value["cwd"] = json!(cwd);
    }
    if let Some(label) = &args.process_label {
        value["selinuxLabel"] = json!(label);
    }
    if let Some(profile) = &args.apparmor {
        value["apparmorProfile"] = json!(profile);
    }
    if args.no_new_privs {
        value["noNewPrivileges"] = json!(true);
    }
    extend(&mut value["env"], &args.env);
    if let Some(user) = &args.user {
        let (uid, gid) = user_ids(user)?;
        value["user"]["uid"] = json!(uid);
        if let Some(gid) = gid {
            value["user"]["gid"] = json!(gid);
        }
    }
    if !args.additional_gids.is_empty() {
        value["user"]["additionalGids"] = json!(args.additional_gids);
    }
    for set in ["bounding", "effective", "permitted"] {
        // Not inheritable, and ambient only what is there already (CVE-2022-29162).
        let caps: Vec<String> = args.cap.iter().map(|c| cap_name(c)).collect();
        if !caps.is_empty() {
            extend(&mut value["capabilities"][set], &caps);
        }
    }
    let warnings = berth_runtime::capabilities::drop_unknown(&mut value["capabilities"]);
    if value["capabilities"].is_null() {
        // Looking for them made the key.
        value["capabilities"] = json!({});
    }
    let process = serde_json::from_value(value).map_err(|e| Failure::new(format!("exec: {e}")))?;
    Ok((process, warnings.into_iter().collect()))
}

fn extend(list: &mut Value, more: &[String]) {
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.extend(more.iter().map(|m| json!(m)));
    }
}

fn cap_name(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    }
}

/// Digits only, both parts whole: a sign, a blank or trailing text read leniently means another user (CVE-2026-30892).
fn user_ids(text: &str) -> Result<(u32, Option<u32>), Failure> {
    let id = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u32>().ok().filter(|_| digits)
    };
    let bad = || Failure::new(format!("--user {text:?} is not UID or UID:GID in numbers"));
    match text.split_once(':') {
        None => Ok((id(text).ok_or_else(bad)?, None)),
        Some((uid, gid)) => Ok((id(uid).ok_or_else(bad)?, Some(id(gid).ok_or_else(bad)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::user_ids;

    #[test]
    fn users_are_read_strictly() {
        assert_eq!(user_ids("1000").ok(), Some((1000, None)));
        assert_eq!(user_ids("0:5").ok(), Some((0, Some(5))));
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "+1",
            "-1",
            "1 ",
            "1a",
            "4294967296",
            "1:2:3",
            "root",
        ] {
            assert!(user_ids(bad).is_err(), "{bad:?}");
        }
    }
}
