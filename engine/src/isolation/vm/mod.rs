//! A container in a microVM: the same image and the same specification, on a kernel of its own.
//!
//! ```text
//! layers ─► EROFS disks ─┐
//! scratch disk ──────────┼─► monitor.rs: berth-vmm boots ─► Ready ─► guest.rs: Setup, Create, Attach, Start
//! kernel, initramfs ─────┘                                              spec.rs: the specification, for inside
//! ```

mod cards;
pub(crate) mod copy;
pub(crate) mod exec;
pub(crate) mod guest;
mod host_cgroup;
mod monitor;
mod probe;
pub(crate) mod programs;
mod shares;
mod spec;
pub(crate) mod stopped;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_guest::client::Client;
use berth_guest::protocol::{
    Create, Ended, Exit, Failure, ProcessId, Reply, Request, Scratch, Setup, Stream, Streams,
};
use rustix::mount::MountAttrFlags;
use serde_json::Value;
use serde_json::value::RawValue;

use self::host_cgroup::HostCgroup;
use self::monitor::{Disk, Machine, Monitor};
use self::programs::Programs;
use super::{Launched, Probe, Sandbox};
use crate::config::ContainerConfig;
use crate::error::{At, Error, Result};
use crate::exec::ExecRequest;
use crate::flags::Isolation;
use crate::network::EndpointStatus;
use crate::paths::Paths;
use crate::rootfs;

pub(crate) use self::monitor::clear;

const MIB: u64 = 1 << 20;
/// What a guest has without `--memory`, and what its kernel needs besides what a container is promised.
const MEMORY_MIB: u64 = 512;
const KERNEL_MIB: u64 = 96;
/// Size of what a container may write; the file takes what was written.
const SCRATCH: u64 = 10 << 30;
/// How long a guest may take to write back and switch itself off.
const FAREWELL: Duration = Duration::from_secs(5);

/// Boots a microVM with a card on each TAP of `endpoints`, and starts the container in it. Blocks while the guest boots. On
/// failure nothing is left but what the caller undoes.
pub(crate) fn launch(
    paths: &Paths,
    config: &ContainerConfig,
    endpoints: &[EndpointStatus],
) -> Result<Launched> {
    let programs = Programs::inherited()?;
    let run_dir = paths.run_dir(&config.id);
    let plan = Plan::of(paths, config, endpoints, files(&run_dir)?, streams(config))?;
    let (monitor, mut client) = plan.create(config, &run_dir, &programs)?;
    let attach = |stream| guest::attach(&run_dir, ProcessId::INIT, stream).map_err(failed);
    let (stdin, stdout, stderr) = if config.tty {
        (None, attach(Stream::Terminal)?, None)
    } else {
        let stdin = config.open_stdin.then(|| attach(Stream::Stdin)).transpose()?;
        (stdin, attach(Stream::Stdout)?, Some(attach(Stream::Stderr)?))
    };
    let end = awaited(&run_dir, ProcessId::INIT)?;
    match client.order(&Request::Start) {
        Ok(()) => {}
        Err(e) => return Err(failed(e.into())),
    }
    let owned = |stream: UnixStream| OwnedFd::from(stream);
    Ok(Launched {
        sandbox: Box::new(InVm {
            monitor,
            run_dir,
            end,
            ended: None,
        }),
        stdin: stdin.map(owned),
        stdout: Some(owned(stdout)),
        stderr: stderr.map(owned),
    })
}

/// A machine, and what its PID 1 is told before the container's program runs.
struct Plan {
    machine: Machine,
    setup: Setup,
    create: Create,
}

impl Plan {
    fn of(
        paths: &Paths,
        config: &ContainerConfig,
        endpoints: &[EndpointStatus],
        files: BTreeMap<String, String>,
        streams: Streams,
    ) -> Result<Plan> {
        let spec = outside(paths, config)?;
        let shares = shares::of(paths, config)?;
        let layers = layers(config);
        let scratch = scratch(paths, config)?;
        let setup = Setup {
            hostname: Some(config.hostname.clone()),
            layers: layers.iter().map(|disk| disk.id.clone()).collect(),
            scratch: Scratch::Drive(scratch.id.clone()),
            files,
            shares: shares::inside(&shares),
            sysctls: spec::network_sysctls(&spec),
            interfaces: cards::inside(endpoints),
            routes: cards::routes(endpoints),
        };
        let machine = Machine {
            vcpus: vcpus(config),
            memory_mib: memory_mib(config),
            disks: layers.into_iter().chain([scratch]).collect(),
            shares: shares::outside(&shares),
            cards: cards::outside(endpoints),
        };
        let inside = spec::inside(spec, config, &paths.run_dir(&config.id), &shares);
        let create = creation(paths, config, &inside, streams)?;
        Ok(Plan {
            machine,
            setup,
            create,
        })
    }

    /// Boots the machine and makes the container up to its program.
    fn create(
        self,
        config: &ContainerConfig,
        run_dir: &Path,
        programs: &Programs,
    ) -> Result<(Monitor, Client<UnixStream>)> {
        let limits = crate::spec::resources::limits(&config.host.resources)?;
        let threads = usize::from(self.machine.vcpus) + self.setup.shares.len();
        let cgroup = HostCgroup::make(&config.cgroup(), &limits, self.machine.memory_mib, threads)?;
        let monitor = Monitor::start(run_dir, programs, &self.machine, cgroup)?;
        let mut client = guest::client(run_dir).map_err(failed)?;
        client
            .order(&Request::Setup(Box::new(self.setup)))
            .map_err(|e| failed(e.into()))?;
        match client.call(&Request::Create(self.create)) {
            Ok(Reply::Created { .. }) => Ok((monitor, client)),
            Ok(other) => Err(out_of_turn(&other)),
            Err(e) => Err(failed(e.into())),
        }
    }
}

/// The specification as for the host's kernel, with users and groups looked up in the image. New volumes get what the image
/// has in their place.
fn outside(paths: &Paths, config: &ContainerConfig) -> Result<Value> {
    let root = image_root(paths, config)?;
    rootfs::fill_volumes(paths, config, root.as_fd())?;
    crate::spec::build(config, paths, root.as_fd(), None)
}

/// The image's files, as a mount that is nowhere.
pub(crate) fn image_root(paths: &Paths, config: &ContainerConfig) -> Result<OwnedFd> {
    let root = paths.upper(&config.id);
    rootfs::prepare(paths, config).at("prepare", &root)?;
    rootfs::overlay(
        &config.image.layers,
        &root,
        &paths.work(&config.id),
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
    .at("stack the layers of", &root)
}

/// The layers' disks, which `create` made.
fn layers(config: &ContainerConfig) -> Vec<Disk> {
    let numbered = config.image.layers.iter().enumerate();
    numbered
        .map(|(number, layer)| Disk {
            id: format!("layer{number}"),
            path: berth_images::snapshot::disk_beside(layer),
            read_only: true,
        })
        .collect()
}

/// The disk the container writes to, made at its first start and kept as long as it.
fn scratch(paths: &Paths, config: &ContainerConfig) -> Result<Disk> {
    let path = paths.scratch(&config.id);
    if !path.exists() {
        crate::scratch::create(&path, SCRATCH)?;
    }
    Ok(Disk {
        id: "scratch".into(),
        path,
        read_only: false,
    })
}

fn files(run_dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for name in spec::FILES {
        let path = run_dir.join(name);
        let bytes = std::fs::read(&path).at("read", &path)?;
        files.insert(name.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(files)
}

fn streams(config: &ContainerConfig) -> Streams {
    if config.tty {
        Streams::Terminal
    } else {
        Streams::Pipes {
            stdin: config.open_stdin,
            stdout: true,
            stderr: true,
        }
    }
}

fn creation(paths: &Paths, config: &ContainerConfig, inside: &Value, streams: Streams) -> Result<Create> {
    let damaged = |source| Error::Damaged {
        path: "specification of a guest".into(),
        source,
    };
    Ok(Create {
        id: config.id.to_string(),
        filters: filters(paths, config, inside)?,
        config: raw(inside).map_err(damaged)?,
        streams,
    })
}

/// Seccomp filters, compiled here: a guest has no compiler.
fn filters(paths: &Paths, config: &ContainerConfig, spec: &Value) -> Result<BTreeMap<String, Vec<u8>>> {
    let Some(profile) = spec["linux"].get("seccomp") else {
        return Ok(BTreeMap::new());
    };
    let profile = serde_json::from_value(profile.clone()).map_err(|source| Error::Damaged {
        path: "seccomp profile".into(),
        source,
    })?;
    let (name, filter) =
        berth_runtime::seccomp::compiled(&profile, Some(&paths.seccomp())).map_err(|source| {
            Error::Runtime {
                id: config.id.short().to_owned(),
                source: Box::new(source.into()),
            }
        })?;
    Ok(BTreeMap::from([(name, filter)]))
}

fn raw(value: &Value) -> serde_json::Result<Box<RawValue>> {
    RawValue::from_string(value.to_string())
}

/// A CPU for each that is promised, and part of one.
fn vcpus(config: &ContainerConfig) -> u8 {
    let promised = config
        .host
        .resources
        .cpus
        .map_or(1, |cpus| cpus.nano.div_ceil(1_000_000_000));
    u8::try_from(promised.clamp(1, 32)).expect("at most 32")
}

fn memory_mib(config: &ContainerConfig) -> u64 {
    let limit = config.host.resources.memory;
    limit.map_or(MEMORY_MIB, |bytes| bytes.0.div_ceil(MIB) + KERNEL_MIB)
}

/// What the container has used, by the guest's counters.
pub(crate) fn stats(run_dir: &Path) -> Result<berth_cgroups::Stats> {
    let mut client = guest::client(run_dir).map_err(failed)?;
    match client.call(&Request::Stats) {
        Ok(Reply::Stats(stats)) => Ok(*stats),
        Ok(other) => Err(out_of_turn(&other)),
        Err(e) => Err(failed(e.into())),
    }
}

/// What the container's processes are doing, by the guest's `/proc`.
pub(crate) fn processes(run_dir: &Path) -> Result<berth_runtime::ps::Observed> {
    let mut client = guest::client(run_dir).map_err(failed)?;
    match client.call(&Request::Processes) {
        Ok(Reply::Processes(observed)) => Ok(observed),
        Ok(other) => Err(out_of_turn(&other)),
        Err(e) => Err(failed(e.into())),
    }
}

/// A verb that needs the container's processes or files on the host.
pub(crate) fn refuse(config: &ContainerConfig, verb: &str) -> Result<()> {
    match config.host.isolation {
        Isolation::Container => Ok(()),
        Isolation::Vm => Err(Error::Unsupported {
            what: format!("{verb} with --isolation vm"),
            why: "processes and files are the guest's".into(),
        }),
    }
}

/// A conversation that is answered when a process has ended.
fn awaited(run_dir: &Path, process: ProcessId) -> Result<UnixStream> {
    let mut connection = guest::connect(run_dir).map_err(failed)?;
    let wait = Request::Wait { process };
    berth_guest::frame::send(&mut connection, &wait)
        .map_err(|e| failed(berth_guest::client::Error::from(e).into()))?;
    Ok(connection)
}

fn failed(e: guest::Error) -> Error {
    if let guest::Error::Conversation(berth_guest::client::Error::Refused(Failure::Exec { program, errno })) =
        &e
    {
        return match *errno {
            libc::ENOENT | libc::ENOTDIR => Error::CommandNotFound {
                program: program.clone(),
            },
            errno => Error::CommandNotExecutable {
                program: program.clone(),
                why: std::io::Error::from_raw_os_error(errno).to_string(),
            },
        };
    }
    let mut why = e.to_string();
    let mut source = std::error::Error::source(&e);
    while let Some(cause) = source {
        why.push_str(": ");
        why.push_str(&cause.to_string());
        source = cause.source();
    }
    Error::MicroVm { why }
}

fn out_of_turn(reply: &Reply) -> Error {
    Error::MicroVm {
        why: format!("the guest answered out of turn: {reply:?}"),
    }
}

/// A container whose processes are a guest's.
#[derive(Debug)]
struct InVm {
    monitor: Monitor,
    run_dir: PathBuf,
    /// Where the end is told.
    end: UnixStream,
    ended: Option<Ended>,
}

impl InVm {
    fn order(&self, request: &Request) -> Result<(), String> {
        guest::order(&self.run_dir, request).map_err(|e| failed(e).chain())
    }
}

impl Sandbox for InVm {
    fn process(&self) -> (i32, u64) {
        self.monitor.process()
    }

    fn ended(&self) -> BorrowedFd<'_> {
        // A monitor that dies closes it.
        self.end.as_fd()
    }

    fn exit_code(&mut self) -> i32 {
        self.ended = match berth_guest::frame::receive(&mut self.end) {
            Ok(Some(Reply::Ended(ended))) => Some(ended),
            _ => None,
        };
        match self.ended.map(|ended| ended.exit) {
            Some(Exit::Code(code)) => code,
            Some(Exit::Signal(signal)) => 128 + signal,
            // The machine ended under it: by a signal of ours, or of its own accord.
            None => crate::reconcile::UNKNOWN_EXIT,
        }
    }

    fn signal(&self, signal: i32) -> Result<(), String> {
        let process = ProcessId::INIT;
        let told = self.order(&Request::Kill { process, signal });
        if told.is_err() && signal == libc::SIGKILL {
            // A guest that does not answer is not let off.
            self.monitor.kill();
            return Ok(());
        }
        told
    }

    fn pause(&self) -> Result<(), String> {
        self.order(&Request::Pause)
    }

    fn resume(&self) -> Result<(), String> {
        self.order(&Request::Resume)
    }

    fn update(&mut self, resources: Value) -> Result<(), String> {
        self.monitor.cgroup().update(&resources).map_err(|e| e.chain())?;
        let resources = raw(&resources).map_err(|e| e.to_string())?;
        self.order(&Request::Update { resources })
    }

    fn resize(&self, _terminal: &OwnedFd, rows: u16, columns: u16) {
        let process = ProcessId::INIT;
        // A terminal that closed meanwhile has no size to set.
        let _ = self.order(&Request::Resize {
            process,
            rows,
            columns,
        });
    }

    fn probe(
        &self,
        paths: &Paths,
        config: &ContainerConfig,
        request: &ExecRequest,
        patience: Duration,
    ) -> Result<Probe> {
        let root = image_root(paths, config)?;
        let process = crate::exec::process(config, request, root.as_fd())?;
        drop(root);
        probe::start(&self.run_dir, &process, patience)
    }

    fn streams_lag(&self) -> bool {
        true
    }

    fn oom_killed(&self) -> bool {
        self.ended.is_some_and(|ended| ended.oom_killed)
    }

    fn delete(self: Box<Self>) {
        // Writes back what is on the scratch disk. Who does not go is killed.
        let told = guest::client(&self.run_dir).is_ok_and(|mut client| client.shut_down().is_ok());
        if told {
            self.monitor.ends_within(FAREWELL);
        }
    }
}
