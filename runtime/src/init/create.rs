//! The steps of a container's init, in order, each with the reason for its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_cgroups::Entry;
use oci_spec::runtime::LinuxNamespaceType as Ns;

use super::identity::{self, LoadFilter};
use super::rootfs::{self, Mounted, Plan, procfs::Proc};
use super::{fail, join, program, stdio};
use crate::error::{Error, Result, Step};
use crate::hooks;
use crate::id::ContainerId;
use crate::seccomp::Filter;
use crate::state::{Record, Status};
use crate::sync::{Channel, Message};
use crate::validate::ContainerSpec;

/// All that init is given; borrowed from the parent's memory across clone.
pub(crate) struct Start<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) spec: &'a ContainerSpec,
    /// How to build the root; none in a mount namespace that is not the container's own, where it is found.
    pub(crate) plan: Option<&'a Plan>,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) listener: Option<BorrowedFd<'a>>,
    pub(crate) entry: &'a Entry,
    pub(crate) targets: &'a [join::Target],
    pub(crate) fifo: Option<BorrowedFd<'a>>,
    pub(crate) streams: Option<&'a [OwnedFd; 3]>,
    /// This process is an intermediate; init is to be cloned from it.
    pub(crate) indirect: bool,
    /// `CLONE_NEW*` bits for init, without the cgroup's.
    pub(crate) flags: u64,
    pub(crate) no_pivot: bool,
    pub(crate) new_keyring: bool,
    pub(crate) preserve_fds: u32,
    pub(crate) record: &'a Record,
}

/// Becomes the user's program or tells why not.
pub(crate) fn run(start: &mut Start<'_>, channel: &Channel) -> ! {
    let Err(error) = steps(start, channel);
    fail(channel, &error)
}

fn steps(start: &mut Start<'_>, channel: &Channel) -> Result<std::convert::Infallible> {
    let spec = start.spec;
    let process = &spec.process;
    guard_from_others(start)?;
    // The host's /proc, while nothing of the image or of a joined mount namespace can stand in its way (CVE-2019-16884,
    // CVE-2025-52881).
    let proc = Proc::open()?;
    if start.indirect {
        // Who has joined a user namespace may not be let into a cgroup of the host's any more: its sibling is born in ours.
        let cgroup = if spec.namespaces.joins(Ns::User) {
            start
                .entry
                .enter_unified()
                .step("enter", "the container's cgroup")?;
            None
        } else {
            start.entry.clone_into()
        };
        let offsets = &spec.time_offsets;
        join::through_intermediate(channel, start.targets, start.flags, &proc, offsets, cgroup)?;
    } else {
        join::enter(start.targets)?;
    }
    if spec.namespaces.makes(Ns::User) {
        // Until the maps are written we are nobody.
        channel.wait_go()?;
        join::become_root()?;
    }
    // Another id has just put back what fs.suid_dumpable says.
    guard_from_others(start)?;
    start.entry.enter().step("enter", "the container's cgroup")?;
    if spec.namespaces.makes(Ns::Cgroup) {
        // After entering: the namespace's root is where its maker stands.
        berth_sys::credentials::unshare(libc::CLONE_NEWCGROUP).step("make", "a cgroup namespace")?;
    }
    rustix::process::setsid().step("start", "a session")?;
    if start.new_keyring {
        join_keyring(start.id)?;
    }
    if !spec.namespaces.has(Ns::User) {
        identity::set_oom_score_adj(&proc, "self", process.oom_score_adj)?;
    }
    set_names(spec)?;
    for (key, value) in &spec.sysctls {
        // Files below /proc/sys show the namespaces of whoever opens them, not of whoever mounted them.
        proc.write(&format!("sys/{key}"), value.as_bytes())?;
    }

    let mut mounted = prepare_root(start)?;
    let hooks = spec.spec.hooks().as_ref();
    if ["prestart", "createRuntime"]
        .iter()
        .any(|kind| !hooks::of(hooks, kind).is_empty())
    {
        channel.say(&Message::Hooks)?;
        channel.wait_go()?;
    }
    run_hooks("createContainer", start, Status::Creating)?;
    enter_root(start, &mut mounted)?;

    if let Some(console) = mounted.console {
        stdio::attach_terminal(console.slave.as_fd(), process.console_size)?;
        channel.say(&Message::Console(console.master))?;
    } else if let Some(streams) = start.streams {
        stdio::place(streams)?;
    }
    drop(mounted.root);
    identity::set_priorities(process)?;
    identity::set_rlimits(process)?;
    if let Some(persona) = spec.personality {
        berth_sys::credentials::set_personality(persona).step("set", "linux.personality")?;
    }
    stdio::chown_to(process.uid);
    identity::set_labels(&proc, process)?;
    drop(proc);
    let load = load_filter(start, channel)?;
    // Keeps a process of another container that shares our pid namespace from tracing us before execve.
    berth_sys::credentials::set_undumpable().step("guard", "init")?;
    identity::become_user(process, load.as_ref())?;
    // As the user: a directory only root may enter is not its directory.
    program::enter_cwd(&process.cwd)?;
    let file = program::find(process)?;
    let env = program::environment(process);
    program::close_on_exec(start.preserve_fds)?;
    berth_sys::credentials::reset_signals();

    channel.say(&Message::Ready)?;
    wait_start(start.fifo, channel)?;
    run_hooks("startContainer", start, Status::Created)?;
    if process.no_new_privileges
        && let Some(load) = &load
    {
        // As late as can be: everything above is ours, not the program's, and need not be allowed by its filter.
        load.load()?;
    }
    Err(program::execute(&file, process, &env))
}

/// In a joined namespace others may see us: from before we enter it, none may trace us or open our files. Not in general,
/// for a parent without privilege could then not write the maps of a user namespace.
fn guard_from_others(start: &Start<'_>) -> Result<()> {
    if start.targets.is_empty() {
        return Ok(());
    }
    berth_sys::credentials::set_undumpable().step("guard", "init")
}

/// Builds the root beside the old one, or finds it.
fn prepare_root(start: &Start<'_>) -> Result<Mounted> {
    if let Some(plan) = start.plan {
        return Ok(rootfs::setup(plan)?);
    }
    let joined = start.spec.namespaces.joins(Ns::Mount);
    Ok(Mounted {
        root: rootfs::shared::find(&start.spec.rootfs, joined)?,
        console: None,
    })
}

/// Makes it `/`.
fn enter_root(start: &Start<'_>, mounted: &mut Mounted) -> Result<()> {
    if let Some(plan) = start.plan {
        rootfs::pivot(plan, mounted, start.no_pivot)?;
        return Ok(rootfs::finish(plan)?);
    }
    rootfs::shared::enter(mounted.root.as_fd())?;
    if start.spec.process.terminal {
        mounted.console = Some(stdio::open_terminal()?);
    }
    Ok(())
}

fn set_names(spec: &ContainerSpec) -> Result<()> {
    if let Some(name) = spec.spec.hostname().as_deref().filter(|n| !n.is_empty()) {
        rustix::system::sethostname(name.as_bytes()).step("set", "hostname")?;
    }
    if let Some(name) = spec.spec.domainname().as_deref().filter(|n| !n.is_empty()) {
        berth_sys::credentials::set_domainname(name.as_bytes()).step("set", "domainname")?;
    }
    Ok(())
}

/// The keys of whoever called the runtime stay behind.
pub(super) fn join_keyring(id: &ContainerId) -> Result<()> {
    let name = std::ffi::CString::new(format!("_ses.{id}")).expect("an id holds no NUL");
    match berth_sys::credentials::join_session_keyring(&name) {
        // No keys in this kernel: none to leak.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.map(drop).step("join", "a session keyring"),
    }
}

fn run_hooks(kind: &'static str, start: &Start<'_>, status: Status) -> Result<()> {
    let list = hooks::of(start.spec.spec.hooks().as_ref(), kind);
    if list.is_empty() {
        return Ok(());
    }
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    hooks::run(kind, list, &start.record.for_hooks(status, pid), None)
}

fn load_filter<'a>(start: &Start<'a>, channel: &Channel) -> Result<Option<LoadFilter<'a>>> {
    let Some(filter) = start.filter else {
        return Ok(None);
    };
    let listener = match start.listener {
        Some(socket) => {
            channel.say(&Message::Pid)?;
            let pid = channel.wait_go()?;
            let seccomp = start
                .spec
                .spec
                .linux()
                .as_ref()
                .and_then(|l| l.seccomp().as_ref());
            Some((socket, start.record.for_listener(pid, seccomp)))
        }
        None => None,
    };
    Ok(Some(LoadFilter { filter, listener }))
}

/// Waits for `start`: a byte in the FIFO, or the parent's word when one process does both.
fn wait_start(fifo: Option<BorrowedFd<'_>>, channel: &Channel) -> Result<()> {
    let Some(fifo) = fifo else {
        return channel.wait_go().map(drop);
    };
    let mut byte = [0u8; 1];
    match rustix::io::retry_on_intr(|| rustix::io::read(fifo, &mut byte)).step("wait for", "start")? {
        1 => Ok(()),
        _ => Err(Error::Init {
            step: "init".into(),
            why: "the start FIFO is gone".into(),
        }),
    }
}
