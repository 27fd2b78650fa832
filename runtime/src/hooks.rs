//! Hooks of the specification (config.md#posix-platform-hooks): programs run at six points, with the state on stdin.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use oci_spec::runtime::{Hook, Hooks};

use crate::error::{Error, Result};

/// Longest piece of a failed hook's stderr that goes into the message.
const STDERR_BYTES_MAX: usize = 4096;

/// The hooks by kind, in order of the lifecycle.
#[must_use]
#[allow(deprecated)] // prestart is deprecated and still what docker's network hook uses
pub fn kinds(hooks: &Hooks) -> [(&'static str, &[Hook]); 6] {
    [
        ("prestart", hooks.prestart().as_deref().unwrap_or_default()),
        (
            "createRuntime",
            hooks.create_runtime().as_deref().unwrap_or_default(),
        ),
        (
            "createContainer",
            hooks.create_container().as_deref().unwrap_or_default(),
        ),
        (
            "startContainer",
            hooks.start_container().as_deref().unwrap_or_default(),
        ),
        ("poststart", hooks.poststart().as_deref().unwrap_or_default()),
        ("poststop", hooks.poststop().as_deref().unwrap_or_default()),
    ]
}

/// The hooks of one kind.
#[must_use]
pub fn of<'a>(hooks: Option<&'a Hooks>, kind: &str) -> &'a [Hook] {
    hooks
        .and_then(|h| kinds(h).into_iter().find(|(k, _)| *k == kind))
        .map_or(&[], |(_, list)| list)
}

/// Runs hooks one after another with `state` on stdin; the first that fails ends the list. Blocks.
///
/// # Errors
///
/// [`Error::Hook`] with the exit status and what the hook wrote to stderr.
pub fn run(kind: &'static str, hooks: &[Hook], state: &[u8], cwd: Option<&Path>) -> Result<()> {
    for hook in hooks {
        run_one(hook, state, cwd).map_err(|why| Error::Hook {
            kind,
            path: hook.path().clone(),
            why,
        })?;
    }
    Ok(())
}

/// As [`run`], but each hook runs whatever became of those before it; what failed, a sentence each. Blocks.
///
/// For poststop: a container's end goes on as if they had succeeded (runtime.md#lifecycle).
#[must_use]
pub fn run_all(kind: &'static str, hooks: &[Hook], state: &[u8], cwd: Option<&Path>) -> Vec<String> {
    hooks
        .iter()
        .filter_map(|hook| run(kind, std::slice::from_ref(hook), state, cwd).err())
        .map(|error| error.to_string())
        .collect()
}

fn run_one(hook: &Hook, state: &[u8], cwd: Option<&Path>) -> Result<(), String> {
    let mut command = Command::new(hook.path());
    if let Some([name, rest @ ..]) = hook.args().as_deref() {
        command.arg0(name).args(rest);
    }
    // Exactly the environment the configuration gives: the runtime's own may hold secrets of its caller.
    command.env_clear();
    for entry in hook.env().iter().flatten() {
        if let Some((key, value)) = entry.split_once('=') {
            command.env(key, value);
        }
    }
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    // A group of its own: on time-out its children go too.
    command.process_group(0);
    // Whoever calls us may hold signals; a shell whose SIGCHLD is blocked waits for ever.
    berth_sys::signals::unblock_at_exec(&mut command);
    let stderr = rustix::fs::memfd_create("hook-stderr", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| format!("cannot keep its messages: {e}"))?;
    let mut stderr = std::fs::File::from(stderr);
    let copy = stderr.try_clone().map_err(|e| e.to_string())?;
    // Opened here, not by Stdio::null, for a message of its own: a root that berth did not build may have none.
    let null = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .map_err(|e| format!("cannot open /dev/null for its output: {e}"))?;
    command.stdin(Stdio::piped()).stdout(null).stderr(copy);
    let mut child = command.spawn().map_err(|e| format!("cannot start: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its state. A state larger than the pipe to a hook that neither reads nor ends would
        // hold us; states are a few hundred bytes plus annotations, so cap what is written before the wait begins.
        let _ = rustix::io::ioctl_fionbio(&stdin, true);
        let _ = stdin.write_all(state);
    }
    let pid = i32::try_from(child.id()).map_err(|e| e.to_string())?;
    if let Some(seconds) = hook.timeout() {
        let timeout = Duration::from_secs(seconds.unsigned_abs());
        let named = rustix::process::Pid::from_raw(pid).ok_or("no pid")?;
        // Not collected yet, so the pid cannot have been reused.
        let pidfd = rustix::process::pidfd_open(named, rustix::process::PidfdFlags::empty())
            .map_err(|e| e.to_string())?;
        if !berth_sys::pidfd::ended_within(&pidfd, Some(timeout)).map_err(|e| e.to_string())? {
            let _ = rustix::process::kill_process_group(named, rustix::process::Signal::KILL);
            let _ = child.wait();
            return Err(format!("did not end within {seconds} s and was killed"));
        }
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    let _ = std::io::Seek::rewind(&mut stderr);
    let _ = (&stderr).take(STDERR_BYTES_MAX as u64).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    Err(match text.trim() {
        "" => status.to_string(),
        said => format!("{status}, stderr: {said}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(json: &str) -> Vec<Hook> {
        vec![serde_json::from_str(json).expect("hook")]
    }

    #[test]
    fn a_hook_gets_its_arguments_its_environment_and_the_state() {
        let script = r#"{"path": "/bin/sh", "args": ["sh", "-c", "test \"$A\" = b && test -z \"$HOME\" && grep -q xyz"], "env": ["A=b"]}"#;
        run("prestart", &hook(script), b"{\"id\":\"xyz\"}", None).expect("hook passes");
        assert!(run("prestart", &hook(script), b"{\"id\":\"other\"}", None).is_err());
    }

    #[test]
    fn a_hook_begins_with_no_signal_blocked() {
        let _held = berth_sys::signals::block_only(libc::SIGCHLD).expect("block");
        // Not by a shell, which may unblock them itself.
        let script = r#"{"path": "/bin/grep", "args": ["grep", "-qx", "SigBlk:.0*", "/proc/self/status"]}"#;
        run("prestart", &hook(script), b"{}", None).expect("hook passes");
    }

    #[test]
    fn a_slow_hook_is_killed_and_named() {
        let script = r#"{"path": "/bin/sh", "args": ["sh", "-c", "sleep 600"], "timeout": 1}"#;
        let error = run("poststart", &hook(script), b"{}", None).expect_err("times out");
        assert!(
            error
                .to_string()
                .starts_with("poststart hook /bin/sh: did not end within 1 s"),
            "{error}"
        );
    }

    #[test]
    fn a_failed_hook_says_what_it_said() {
        let script = r#"{"path": "/bin/sh", "args": ["sh", "-c", "echo no luck >&2; exit 3"]}"#;
        let error = run("createRuntime", &hook(script), b"{}", None)
            .expect_err("fails")
            .to_string();
        assert!(error.contains("no luck") && error.contains('3'), "{error}");
    }
}
