//! The two ends of a container's run: everything begun in order, undone in reverse when a step fails, and ended.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use jiff::Timestamp;

use crate::config::ContainerConfig;
use crate::container::{Health, State, Status};
use crate::error::{At, Error, Result};
use crate::flags::{Isolation, NetworkMode};
use crate::isolation::{self, Launched, Sandbox};
use crate::membership::CHANGING;
use crate::network::{self, AttachRequest, Attachment, FarEnd, Released, dns::Responder, files};
use crate::paths::Paths;
use crate::reconcile::{network_paths, settle};
use crate::record::{self, Durability};
use crate::{rootfs, spec};

use super::shm;

/// A container that runs, and what is ours of it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) sandbox: Box<dyn Sandbox>,
    /// With a terminal its master; otherwise the read ends of the two pipes.
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    /// The write end of the pipe; none with a terminal (its master takes input) or without `-i`.
    pub(super) stdin: Option<OwnedFd>,
    /// Input that has ended, of a microVM: closed whole it would be a connection that broke.
    pub(super) ended_stdin: Option<OwnedFd>,
    pub(super) responder: Option<Responder>,
    /// Holds the port reservations.
    _attachment: Option<Attachment>,
}

/// Starts it and records that it runs. On failure nothing is left behind but the record of why.
pub(super) fn begin(paths: &Paths, config: &ContainerConfig, state: &mut State) -> Result<Running> {
    // Recorded before it is made: should the shim be killed from here on, reconcile knows to clean up.
    state.status = Status::Restarting;
    name_shim(state);
    state.error.clear();
    record::save_state(paths, &config.id, state, Durability::Renamed)?;
    let running = steps(paths, config, state);
    if let Err(e) = &running {
        let _released = undo(paths, config);
        settle(state);
        state.status = if state.started.is_some() {
            Status::Exited
        } else {
            Status::Created
        };
        state.error = e.chain();
        state.exit_code = e.exit_code().into();
        // The error in hand says more than a failed write would.
        let _ = record::save_state(paths, &config.id, state, Durability::Renamed);
    }
    running
}

/// Records who we are. Without a start time nobody kills us by our pid, which is no reason not to start.
fn name_shim(state: &mut State) {
    state.shim_pid = rustix::process::getpid().as_raw_nonzero().get();
    state.shim_start = berth_sys::pidfd::stat(state.shim_pid).map_or(0, |stat| stat.start_time);
}

fn steps(paths: &Paths, config: &ContainerConfig, state: &mut State) -> Result<Running> {
    let id = &config.id;
    let mut attachment = attach_network(paths, config)?;
    let responder = match &mut attachment {
        Some(attachment) => name_server(paths, config, attachment)?,
        None => None,
    };
    etc_files(paths, config, attachment.as_ref())?;
    let netns = attachment.as_ref().and_then(|a| a.netns.as_deref());
    let launched = match config.host.isolation {
        Isolation::Container => isolation::container::launch(paths, config, netns)?,
        Isolation::Vm => {
            let endpoints = attachment.as_ref().map_or(&[][..], |a| &a.endpoints);
            isolation::vm::launch(paths, config, endpoints)?
        }
    };
    state.status = Status::Running;
    (state.pid, state.pid_start) = launched.sandbox.process();
    state.started = Some(Timestamp::now());
    state.finished = None;
    state.oom_killed = false;
    state.exit_code = 0;
    state.health = config
        .healthcheck
        .as_ref()
        .and_then(|check| check.command())
        .map(|_| Health {
            status: "starting".into(),
            ..Health::default()
        });
    if let Some(attachment) = &attachment {
        state.endpoints = attachment.endpoints.clone();
        state.ports = attachment.ports.clone();
    }
    record::save_state(paths, id, state, Durability::Renamed)?;
    let Launched {
        sandbox,
        stdin,
        stdout,
        stderr,
    } = launched;
    for fd in [&stdin, &stdout, &stderr].into_iter().flatten() {
        rustix::io::ioctl_fionbio(fd, true).at("prepare the streams of", id.as_str())?;
    }
    Ok(Running {
        sandbox,
        stdin,
        stdout,
        stderr,
        ended_stdin: None,
        responder,
        _attachment: attachment,
    })
}

fn network_error(config: &ContainerConfig, e: network::Error) -> Error {
    Error::Network {
        id: config.id.short().to_owned(),
        source: Box::new(e),
    }
}

/// Whether it has a name server of ours. One that is on no network at the moment may join one while it runs.
fn serves_names(config: &ContainerConfig, attachment: &Attachment) -> bool {
    let may_join = matches!(config.host.network, NetworkMode::Bridge | NetworkMode::Named(_));
    !attachment.endpoints.is_empty() || (may_join && attachment.netns.is_some())
}

/// Answers the container's questions for names.
fn name_server(
    paths: &Paths,
    config: &ContainerConfig,
    attachment: &mut Attachment,
) -> Result<Option<Responder>> {
    if !serves_names(config, attachment) {
        return Ok(None);
    }
    let (paths, id, dns) = (network_paths(paths), config.id.as_str(), &config.host.dns);
    let responder = match attachment.name_server.take() {
        Some(sockets) => Responder::of_guest(&paths, id, dns, sockets, &attachment.endpoints),
        None => Responder::bind(&paths, id, dns),
    };
    responder.map(Some).map_err(|e| network_error(config, e))
}

fn attach_network(paths: &Paths, config: &ContainerConfig) -> Result<Option<Attachment>> {
    let host = &config.host;
    if matches!(host.network, NetworkMode::Host | NetworkMode::Container(_)) {
        return Ok(None);
    }
    let networks = config.endpoints();
    // Taken off its last network it has no address to publish.
    let ports = if networks.is_empty() {
        Vec::new()
    } else {
        host.ports.clone()
    };
    let request = AttachRequest {
        container_id: config.id.to_string(),
        name: config.name.to_string(),
        hostname: config.hostname.clone(),
        far_end: match host.isolation {
            Isolation::Container => FarEnd::NewNamespace,
            Isolation::Vm => FarEnd::MicroVm,
        },
        networks,
        ports,
        dns: host.dns.clone(),
    };
    network::attach(&network_paths(paths), &request)
        .map(Some)
        .map_err(|e| network_error(config, e))
}

fn etc_files(paths: &Paths, config: &ContainerConfig, attachment: Option<&Attachment>) -> Result<()> {
    let run = paths.run_dir(&config.id);
    let write = |name: &str, text: Vec<u8>| {
        let path = run.join(name);
        std::fs::write(&path, text).at("write", &path)?;
        // Any user of the container reads them, whatever umask berth was started with.
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).at("set the mode of", &path)
    };
    if let NetworkMode::Container(other) = &config.host.network {
        // Who shares the network shares its names, of a container that runs.
        spec::namespaces::pid_of(paths, other)?;
        let from = paths.run_dir(&spec::namespaces::referenced(paths, other)?);
        for name in ["resolv.conf", "hosts", "hostname"] {
            let source = from.join(name);
            write(name, std::fs::read(&source).at("read", &source)?)?;
        }
        return Ok(());
    }
    let endpoints = attachment.map_or(&[][..], |a| &a.endpoints);
    let name_server = attachment
        .filter(|attachment| serves_names(config, attachment))
        .and_then(Attachment::name_server_address);
    let dns = &config.host.dns;
    write("hostname", files::hostname(&config.hostname).into())?;
    let (hosts, resolv_conf) = if config.host.network == NetworkMode::Host {
        (files::hosts_of_host(dns), files::resolv_conf_of_host(dns))
    } else {
        let domain = config.domainname.as_deref();
        (
            Ok(files::hosts(&config.hostname, domain, endpoints, dns).into()),
            files::resolv_conf(name_server, dns).map(String::into_bytes),
        )
    };
    write("hosts", hosts.map_err(|e| network_error(config, e))?)?;
    write("resolv.conf", resolv_conf.map_err(|e| network_error(config, e))?)
}

/// Takes back whatever of a start was made. Each step is fine when there is nothing to do, and one that fails keeps
/// none of the others from being tried; reconcile gets another chance at what is left. Links go a moment later
/// ([`network::linger`]).
pub(super) fn undo(paths: &Paths, config: &ContainerConfig) -> Released {
    let _ = super::forget(paths, &config.id);
    let _ = rootfs::unmount(&paths.rootfs(&config.id));
    let _ = shm::give_back(paths, &config.id);
    let released = network::release(&network_paths(paths), config.id.as_str()).unwrap_or_default();
    sweep(&paths.run_dir(&config.id));
    released
}

/// Empties the run directory but for the lock, whose absence would read as "shim gone".
fn sweep(run: &Path) {
    let _ = std::fs::remove_dir_all(run.join("bundle"));
    for name in ["resolv.conf", "hosts", "hostname", CHANGING] {
        let _ = std::fs::remove_file(run.join(name));
    }
    isolation::vm::clear(run);
}

/// Records the end of a run. `again` says that the policy starts it once more. What it returns is dropped after everybody
/// who waits for the end has been told.
pub(super) fn end(
    paths: &Paths,
    config: &ContainerConfig,
    state: &mut State,
    running: Running,
    code: i32,
    again: bool,
) -> Result<Released> {
    state.oom_killed = running.sandbox.oom_killed();
    running.sandbox.delete();
    let released = undo(paths, config);
    settle(state);
    state.exit_code = code;
    state.finished = Some(Timestamp::now());
    state.status = if again { Status::Restarting } else { Status::Exited };
    if again {
        name_shim(state);
    } else {
        // Before the record: once that says "exited" the name may be the next shim's.
        let _ = std::fs::remove_file(paths.run_dir(&config.id).join("shim.sock"));
    }
    let durability = if again {
        Durability::Renamed
    } else {
        record::last_words(config)
    };
    record::save_state(paths, &config.id, state, durability)?;
    Ok(released)
}
