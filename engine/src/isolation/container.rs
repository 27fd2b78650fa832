//! A container on the host's kernel: overlay, spec, and `berth-runtime`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use berth_runtime::{Console, Container, CreateOptions, Stdio};
use berth_sys::pidfd;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;

use super::{Launched, Probe, Sandbox, host_probe};
use crate::config::ContainerConfig;
use crate::error::{At, Error, Result};
use crate::exec::ExecRequest;
use crate::flags::PidMode;
use crate::paths::Paths;
use crate::shim::{self, shm};
use crate::{rootfs, spec};

/// Longest wait for a step of init where the processes of another container can see and stop it; milliseconds otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts it, in the network namespace `netns` if one was made for it. What a failure leaves is the caller's to undo.
pub(crate) fn launch(paths: &Paths, config: &ContainerConfig, netns: Option<&Path>) -> Result<Launched> {
    let id = &config.id;
    let target = paths.rootfs(id);
    std::fs::create_dir_all(&target).at("create", &target)?;
    rootfs::mount(paths, config, &target).at("mount the root at", &target)?;
    let root = rustix::fs::open(
        &target,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at("open", &target)?;
    rootfs::fill_volumes(paths, config, root.as_fd())?;
    shm::borrow(paths, config)?;
    let spec = spec::build(config, paths, root.as_fd(), netns)?;
    drop(root);
    let path = paths.bundle(id).join("config.json");
    let bytes = serde_json::to_vec(&spec).map_err(|source| Error::Damaged {
        path: path.clone(),
        source,
    })?;
    std::fs::write(&path, bytes).at("write", &path)?;
    let streams = Streams::new(config)?;
    let created = Container::create(
        &shim::runtime_root(paths),
        &shim::runtime_id(id)?,
        &paths.bundle(id),
        CreateOptions {
            stdio: streams.theirs,
            console: if config.tty {
                Console::Receive
            } else {
                Console::None
            },
            seccomp_cache: Some(paths.seccomp()),
            start_at_once: true,
            patience: matches!(config.host.pid, PidMode::Container(_)).then_some(PATIENCE),
            ..CreateOptions::default()
        },
    )
    .map_err(|e| shim::runtime_error(id, e))?;
    let (mut container, init) = (created.container, created.init);
    if let Err(e) = container.start() {
        return Err(shim::runtime_error(id, e));
    }
    // The container has its own copy by now; the host's mount table stays as short as it was.
    rootfs::unmount(&target).at("unmount", &target)?;
    shm::give_back(paths, id).at("unmount", shm::place(paths, id))?;
    let (stdin, stdout, stderr) = match created.console {
        Some(master) => (None, Some(master), None),
        None => (streams.stdin, streams.stdout, streams.stderr),
    };
    Ok(Launched {
        sandbox: Box::new(OnHost {
            container,
            init,
            // Without a limit of its own the count would be the host's trouble, and reading it costs the exit path.
            limited: config.host.resources.memory.is_some(),
            cgroup: config.cgroup(),
        }),
        stdin,
        stdout,
        stderr,
    })
}

/// A container whose processes are the host's.
#[derive(Debug)]
struct OnHost {
    container: Container,
    init: OwnedFd,
    limited: bool,
    cgroup: String,
}

impl Sandbox for OnHost {
    fn process(&self) -> (i32, u64) {
        (self.container.pid(), self.container.record().start_time)
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    fn exit_code(&mut self) -> i32 {
        pidfd::wait(&self.init).map_or(crate::reconcile::UNKNOWN_EXIT, pidfd::Exit::code)
    }

    fn signal(&self, signal: i32) -> Result<(), String> {
        pidfd::send_signal(&self.init, signal).map_err(|e| e.to_string())
    }

    fn pause(&self) -> Result<(), String> {
        self.container.pause().map_err(|e| e.chain())
    }

    fn resume(&self) -> Result<(), String> {
        self.container.resume().map_err(|e| e.chain())
    }

    fn update(&mut self, resources: Value) -> Result<(), String> {
        let resources = serde_json::from_value(resources).map_err(|e| e.to_string())?;
        self.container.update(&resources).map_err(|e| e.chain())
    }

    fn resize(&self, terminal: &OwnedFd, rows: u16, columns: u16) {
        // A terminal that closed meanwhile has no size to set.
        let _ = berth_sys::pty::set_size(terminal, rows, columns);
    }

    fn probe(
        &self,
        paths: &Paths,
        config: &ContainerConfig,
        request: &ExecRequest,
        patience: Duration,
    ) -> Result<Probe> {
        host_probe::start(&self.container, paths, config, request, patience)
    }

    fn streams_lag(&self) -> bool {
        false
    }

    fn oom_killed(&self) -> bool {
        self.limited
            && berth_cgroups::Hierarchy::detect()
                .and_then(|h| {
                    berth_cgroups::Cgroup::open(&h, &berth_cgroups::CgroupPath::parse(&self.cgroup)?)
                })
                .and_then(|c| c.oom_kills())
                .is_ok_and(|n| n > 0)
    }

    fn delete(self: Box<Self>) {
        // With --pid host others of it may live on; they go with it. What fails is reconcile's.
        let _ = self.container.delete(true);
    }
}

/// Our ends and the container's.
struct Streams {
    theirs: Stdio,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Streams {
    fn new(config: &ContainerConfig) -> Result<Streams> {
        if config.tty {
            return Ok(Streams {
                theirs: Stdio::Inherit,
                stdin: None,
                stdout: None,
                stderr: None,
            });
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC).at("make a pipe for", config.id.as_str());
        let (in_read, in_write) = if config.open_stdin {
            let (read, write) = pipe()?;
            (read, Some(write))
        } else {
            let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            (null.at("open", "/dev/null")?, None)
        };
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = pipe()?;
        Ok(Streams {
            theirs: Stdio::Fds([in_read, out_write, err_write]),
            stdin: in_write,
            stdout: Some(out_read),
            stderr: Some(err_read),
        })
    }
}
