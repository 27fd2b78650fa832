//! `exec`: one more process in a running container, started by this process itself; no shim is asked.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::{Console, Container, ExecOptions, Stdio};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use serde_json::json;

use crate::attach::{DetachKeys, Raw, write_all};
use crate::config::ContainerConfig;
use crate::container::Verb;
use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::flags::{Isolation, SecurityOpt, UserSpec};
use crate::id::ContainerId;
use crate::isolation::vm;
use crate::shim::{runtime_error, runtime_id, runtime_root};
use crate::{image_files, spec};

/// One more process in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub interactive: bool,
    /// `-d`: return once it runs.
    pub detach: bool,
    /// `-e`.
    pub env: Vec<String>,
    /// `-w`.
    pub working_dir: Option<String>,
    /// `-u`.
    pub user: Option<UserSpec>,
    /// `--privileged`.
    pub privileged: bool,
    /// `--detach-keys`.
    pub detach_keys: DetachKeys,
}

impl Engine {
    /// Runs it and returns its exit code; 0 at once when detached. This process must be single-threaded and sealed: call
    /// `berth_sys::reexec::seal` first thing in `main` (CVE-2019-5736).
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] over [`berth_runtime::Error::NotSealed`] in a program that is not sealed;
    /// [`Error::Wrong`] unless the container runs; [`Error::CommandNotFound`], [`Error::CommandNotExecutable`].
    pub fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<i32> {
        let config = self.config(id)?;
        let state = self.state(id)?;
        if !state.status.allows(Verb::Exec) {
            return Err(Error::Wrong {
                verb: "exec in",
                name: config.name.to_string(),
                status: state.status,
            });
        }
        if request.command.is_empty() {
            return Err(Error::Invalid {
                what: "exec".into(),
                why: "no command was given".into(),
            });
        }
        spec::working_dir(request.working_dir.as_deref().unwrap_or_default())?;
        let root = match config.host.isolation {
            Isolation::Container => root_of(state.pid)?,
            Isolation::Vm => vm::image_root(&self.paths, &config)?,
        };
        let process = process(&config, request, root.as_fd())?;
        drop(root);
        // Without the environment, which may hold secrets.
        log::debug!("executing {:?} in container {id}", request.command);
        let command = line(&request.command);
        self.event(&format!("exec_create: {command}"), &config, &[]);
        let ended = if config.host.isolation == Isolation::Vm {
            vm::exec::exec(&self.paths.run_dir(id), &process, request).map(Some)
        } else {
            self.exec_on_host(id, process, request, || {
                self.event(&format!("exec_start: {command}"), &config, &[]);
            })
        }?;
        if let Some(code) = ended.filter(|_| !request.detach) {
            self.event("exec_die", &config, &[("exitCode", code.to_string())]);
        }
        Ok(ended.unwrap_or(0))
    }

    /// Its exit code, unless we have left before; tells when it runs.
    fn exec_on_host(
        &self,
        id: &ContainerId,
        process: serde_json::Value,
        request: &ExecRequest,
        runs: impl FnOnce(),
    ) -> Result<Option<i32>> {
        let process = serde_json::from_value(process).map_err(|source| Error::Damaged {
            path: "process of exec".into(),
            source,
        })?;
        let container = Container::load(&runtime_root(&self.paths), &runtime_id(id)?)
            .map_err(|e| runtime_error(id, e))?;
        let options = ExecOptions {
            stdio: if request.tty {
                Stdio::Inherit
            } else {
                stdio(request).at("prepare", "standard streams")?
            },
            console: if request.tty {
                Console::Receive
            } else {
                Console::None
            },
            seccomp_cache: Some(self.paths.seccomp()),
            ..ExecOptions::default()
        };
        let started = container
            .exec(&process, options)
            .map_err(|e| runtime_error(id, e))?;
        runs();
        if request.detach {
            return Ok(None);
        }
        if let Some(master) = started.console
            && terminal(master.as_fd(), &resize_of(&master), request)? == Left::ByKeys
        {
            leave(master)?;
            return Ok(None);
        }
        let exit = berth_sys::pidfd::wait(&started.pidfd).at("wait for", "exec")?;
        Ok(Some(exit.code()))
    }
}

/// A command as one line of the event log, where it need not be whole.
fn line(command: &[String]) -> String {
    const CHARACTERS_MAX: usize = 1024;
    command.join(" ").chars().take(CHARACTERS_MAX).collect()
}

/// Leaves a process that keeps the terminal open: closed, it would hang up on the program that goes on at it.
pub(crate) fn leave(master: OwnedFd) -> Result<()> {
    let keep = || {
        // Our user's terminal may hang up, and whoever reads our output waits for its end.
        let _ = rustix::process::setsid();
        let _ = rustix::thread::set_name(c"berth-terminal");
        if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
            let _ = rustix::stdio::dup2_stdin(&null);
            let _ = rustix::stdio::dup2_stdout(&null);
            let _ = rustix::stdio::dup2_stderr(&null);
        }
        let mut buffer = [0; 4096];
        // What it writes is dropped, until nobody has the other end open.
        while rustix::io::retry_on_intr(|| rustix::io::read(&master, &mut buffer)).is_ok_and(|n| n > 0) {}
    };
    berth_sys::clone::go_on_alone(keep).at("leave", "the terminal")
}

/// Our own streams, or /dev/null where the process gets none.
fn stdio(request: &ExecRequest) -> std::io::Result<Stdio> {
    let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let input = if request.interactive {
        stdin.as_fd().try_clone_to_owned()?
    } else {
        null()?
    };
    if request.detach {
        return Ok(Stdio::Fds([input, null()?, null()?]));
    }
    Ok(Stdio::Fds([
        input,
        stdout.as_fd().try_clone_to_owned()?,
        stderr.as_fd().try_clone_to_owned()?,
    ]))
}

/// The root of a container whose init is `pid`.
pub(crate) fn root_of(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    rustix::fs::open(
        &path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at("open", &path)
}

/// The OCI process of an exec; users and groups are looked up in `root`.
pub(crate) fn process(
    config: &ContainerConfig,
    request: &ExecRequest,
    root: BorrowedFd<'_>,
) -> Result<serde_json::Value> {
    let user = request.user.as_ref().unwrap_or(&config.user);
    let identity = image_files::identity(root, user, &config.host.group_add)?;
    let mut host = config.host.clone();
    host.privileged |= request.privileged;
    let caps = spec::caps::effective(&host)?;
    let env = crate::create::merge_env(&config.env, &request.env);
    let cwd = request.working_dir.as_deref().unwrap_or(&config.working_dir);
    Ok(json!({
        "terminal": request.tty,
        "user": { "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups },
        "args": request.command,
        "env": spec::environment(&env, &identity, &config.hostname, request.tty),
        "cwd": if cwd.is_empty() { "/" } else { cwd },
        "capabilities": spec::capability_sets(&identity, &caps),
        "noNewPrivileges": config.host.security.contains(&SecurityOpt::NoNewPrivileges(true)),
    }))
}

/// How a terminal was left.
#[derive(PartialEq, Eq)]
pub(crate) enum Left {
    AtEnd,
    ByKeys,
}

fn resize_of(master: &OwnedFd) -> impl Fn(u16, u16) + '_ {
    move |rows, columns| {
        // A terminal that closed meanwhile has no size to set.
        let _ = berth_sys::pty::set_size(master, rows, columns);
    }
}

/// Joins our terminal with the process's until that closes or the user leaves. `set_size` takes rows and columns.
pub(crate) fn terminal(
    master: BorrowedFd<'_>,
    set_size: &impl Fn(u16, u16),
    request: &ExecRequest,
) -> Result<Left> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let raw = request.interactive.then(|| Raw::enter(stdin.as_fd())).flatten();
    let signals = berth_sys::signals::block_all().at("watch", "signals")?;
    let resize = || {
        if let Ok(size) = rustix::termios::tcgetwinsize(&stdout) {
            set_size(size.ws_row, size.ws_col);
        }
    };
    resize();
    let (mut buffer, mut input_open, mut matched) = (vec![0u8; 16 * 1024], request.interactive, 0);
    loop {
        let mut fds = vec![
            PollFd::from_borrowed_fd(master, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        if input_open {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::io("poll", "the terminal", e)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            match rustix::io::read(master, &mut buffer) {
                Ok(n) if n > 0 => write_all(stdout.as_fd(), &buffer[..n]).at("write", "standard output")?,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                // EIO: the last of its processes has closed it.
                _ => return Ok(Left::AtEnd),
            }
        }
        if ready[1] {
            while let Some(signal) = berth_sys::signals::next(&signals).at("read", "signals")? {
                match signal {
                    libc::SIGWINCH => resize(),
                    libc::SIGHUP | libc::SIGTERM => return Ok(Left::ByKeys),
                    _ => {}
                }
            }
        }
        if ready.get(2) == Some(&true) {
            let n = rustix::io::read(&stdin, &mut buffer).unwrap_or(0);
            if n == 0 {
                input_open = false;
                // End of input, as a terminal's user types it.
                let _ = rustix::io::write(master, &[4]);
            } else if raw.is_some() && request.detach_keys.seen(&mut matched, &buffer[..n]) {
                return Ok(Left::ByKeys);
            } else {
                write_all(master, &buffer[..n]).at("write", "the terminal")?;
            }
        }
    }
}
