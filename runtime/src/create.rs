//! `create`, the parent's side: checks, records, makes the cgroup, clones init and hears it out.
//!
//! Order matters for crashes: the id is taken, `state.json` names the cgroup, then the cgroup is made, then init is
//! cloned into it. Whatever a `kill -9` leaves, `delete --force` finds by the record. Failure undoes all of it here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use berth_cgroups::{Cgroup, CgroupPath, Hierarchy};
use berth_sys::clone::{Clone3, Forked, clone3};
use berth_sys::pidfd;
use oci_spec::runtime::{LinuxNamespaceType as Ns, LinuxResources};
use rustix::fs::{FileType, Mode, OFlags};

use crate::bundle::Bundle;
use crate::container::{Console, Container, CreateOptions, Created, Stdio};
use crate::error::{Error, Result, Step, ending};
use crate::hooks;
use crate::id::ContainerId;
use crate::init::{self, create::Start, join, rootfs::Plan};
use crate::intermediate::Intermediate;
use crate::seccomp::Filter;
use crate::state::{Record, StateRoot, Status};
use crate::sync::{Channel, Message};
use crate::validate::{self, ContainerSpec, bit};

/// What is taken back when create fails, last made first.
struct Undo<'a> {
    root: &'a StateRoot,
    id: &'a ContainerId,
    cgroup: Option<Cgroup>,
    hierarchy: Option<Hierarchy>,
    path: CgroupPath,
    init: Option<OwnedFd>,
    armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        // Failures here change nothing for the caller, who learns the first one; delete --force can try again.
        if let Some(init) = self.init.take() {
            let _ = pidfd::send_signal(&init, libc::SIGKILL);
            let _ = pidfd::wait(&init);
        }
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.kill();
            let _ = cgroup.remove();
        }
        if let Some(hierarchy) = &self.hierarchy {
            hierarchy.remove_made_parents(&self.path);
        }
        let _ = self.root.release(self.id);
    }
}

pub(crate) fn create(
    root: &StateRoot,
    id: &ContainerId,
    bundle: &Path,
    options: CreateOptions,
) -> Result<Created> {
    let spec = validate::check(Bundle::open(bundle)?)?;
    check_privilege(&spec.namespaces)?;
    check_console(spec.process.terminal, &options.console)?;
    let plan = if spec.namespaces.shares_mounts() {
        None
    } else {
        Some(Plan::prepare(&spec.spec, &spec.bundle)?)
    };
    let linux = spec.spec.linux().as_ref();
    let seccomp = linux.and_then(|l| l.seccomp().as_ref());
    let filter = seccomp
        .map(|s| Filter::compile(s, options.seccomp_cache.as_deref()))
        .transpose()?;
    let targets = join::open(&spec.namespaces)?;
    let console_socket = connect_console(&options.console)?;
    let resources = linux.and_then(|l| l.resources().as_ref());
    let cgroup_path = match linux
        .and_then(|l| l.cgroups_path().as_ref())
        .filter(|p| !p.as_os_str().is_empty())
    {
        Some(path) => CgroupPath::parse(path)?,
        None => CgroupPath::default_for(id.as_str())?,
    };

    root.claim(id)?;
    let mut undo = Undo {
        root,
        id,
        cgroup: None,
        hierarchy: None,
        path: cgroup_path.clone(),
        init: None,
        armed: true,
    };
    let mut record = record(id, &spec, cgroup_path, !options.start_at_once)?;
    root.save(id, &record)?;
    let hierarchy = undo.hierarchy.insert(Hierarchy::detect()?);
    undo.cgroup = Some(Cgroup::create(hierarchy, &record.cgroup, resources)?);
    let cgroup = undo.cgroup.as_ref().expect("made on the line above");
    if let Some(resources) = resources {
        cgroup.apply(&crate::resources::with_default_devices(resources))?;
    }
    let entry = cgroup.entry()?;

    let fifo = if options.start_at_once {
        None
    } else {
        Some(make_fifo(root, id)?)
    };
    let (mut parent, child) = Channel::pair()?;
    parent.set_patience(options.patience);
    let listener = connect_listener(seccomp, filter.as_ref())?;
    let streams = match options.stdio {
        Stdio::Inherit => None,
        Stdio::Fds(fds) => Some(init::stdio::lift(fds)?),
    };
    let indirect = join::needs_intermediate(&spec.namespaces);
    let flags = spec.namespaces.new & !bit(Ns::Cgroup);
    let mut start = Start {
        id,
        spec: &spec,
        plan: plan.as_ref(),
        filter: filter.as_ref(),
        listener: listener.as_ref().map(AsFd::as_fd),
        entry: &entry,
        targets: &targets,
        fifo: fifo.as_ref().map(AsFd::as_fd),
        streams: streams.as_ref(),
        indirect,
        flags,
        no_pivot: options.no_pivot,
        new_keyring: !options.no_new_keyring,
        preserve_fds: options.preserve_fds,
        record: &record,
    };
    let first_flags = if indirect { 0 } else { flags };
    let (mut pid, first) = match clone_first(first_flags, if indirect { None } else { entry.clone_into() })? {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            drop(parent);
            init::create::run(&mut start, &child)
        }
    };
    drop(child);
    drop(entry);
    if indirect {
        let (real, pidfd) = Intermediate::new(pid, first).hear(&parent)?;
        pid = real;
        undo.init = Some(pidfd);
    } else {
        undo.init = Some(first);
    }
    if spec.namespaces.has(Ns::User) {
        // Not for init to do: the kernel asks for the right to its own file, and to lower it, on the host.
        let proc = init::rootfs::procfs::Proc::open()?;
        init::identity::set_oom_score_adj(&proc, &pid.to_string(), spec.process.oom_score_adj)?;
    }
    if indirect {
        parent.go(pid)?;
    }
    let init = undo.init.as_ref().expect("set in both branches above");
    if spec.namespaces.makes(Ns::User) {
        write_id_maps(pid, &spec)?;
        parent.go(pid)?;
    }
    // While the child mounts: this is what makes a child of a killed parent findable.
    record.pid = pid;
    record.start_time = pidfd::stat(pid).map_or(0, |stat| stat.start_time);
    root.save(id, &record)?;

    let mut console = None;
    let mut hooked = false;
    let heard = hear(&parent, pid, &spec, &record, &mut console, &mut hooked, init);
    if let Err(error) = heard {
        let error = if is_oom(cgroup) {
            Error::InitOom {
                limit: memory_limit(resources),
            }
        } else {
            error
        };
        if hooked {
            // config.md#posix-platform-hooks: what prestart set up, poststop takes down, also when create fails.
            // Their failures would hide why the container was not created.
            let _ = hooks::run_all(
                "poststop",
                &record.poststop,
                &record.for_hooks(Status::Stopped, 0),
                Some(&spec.bundle),
            );
        }
        return Err(error);
    }
    if let (Some(socket), Some(master)) = (&console_socket, console.take_if(|_| console_socket.is_some())) {
        berth_sys::fdpass::send(socket, b"/dev/ptmx", &[master.as_fd()])
            .step("send", "the terminal to the console socket")?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, pid)?;
    }
    if !options.start_at_once {
        root.publish_fifo(id)?;
    }
    undo.armed = false;
    let init = undo.init.take().expect("set above");
    let starter = options.start_at_once.then_some(parent);
    let container = Container {
        root: root.clone(),
        id: id.clone(),
        record,
        starter,
        hierarchy: undo.hierarchy.take().map(OnceLock::from).unwrap_or_default(),
    };
    Ok(Created {
        container,
        console,
        init,
        warnings: spec.warnings,
    })
}

/// Hears the child until it is ready.
fn hear(
    channel: &Channel,
    pid: i32,
    spec: &ContainerSpec,
    record: &Record,
    console: &mut Option<OwnedFd>,
    hooked: &mut bool,
    init: &OwnedFd,
) -> Result<()> {
    loop {
        match channel.hear()? {
            Some(Message::Hooks) => {
                *hooked = true;
                let state = record.for_hooks(Status::Creating, pid);
                let all = spec.spec.hooks().as_ref();
                for kind in ["prestart", "createRuntime"] {
                    hooks::run(kind, hooks::of(all, kind), &state, Some(&spec.bundle))?;
                }
                channel.go(pid)?;
            }
            Some(Message::Console(master)) => *console = Some(master),
            Some(Message::Pid) => channel.go(pid)?,
            Some(Message::Ready) => return Ok(()),
            Some(Message::Failed(failure)) => return Err(failure.into()),
            Some(Message::Init { .. }) => {
                return Err(Error::InitDied {
                    how: "after speaking out of turn".into(),
                });
            }
            None => {
                return Err(Error::InitDied {
                    how: ending(pidfd::wait(init)),
                });
            }
        }
    }
}

/// Whether the memory limit struck: whatever the error then is, that is the reason for it.
fn is_oom(cgroup: &Cgroup) -> bool {
    cgroup.oom_kills().is_ok_and(|kills| kills > 0)
}

fn memory_limit(resources: Option<&LinuxResources>) -> Option<i64> {
    resources?.memory().as_ref()?.limit().filter(|limit| *limit > 0)
}

/// One clear line before the first of many steps fails for the same reason.
fn check_privilege(namespaces: &validate::Namespaces) -> Result<()> {
    if rustix::process::geteuid().is_root() || namespaces.makes(Ns::User) {
        return Ok(());
    }
    Err(Error::NotRoot)
}

/// The one place that clones; its duty is on the callers of the library. Refuses when this program's file could be written
/// through `/proc/PID/exe` of what is cloned (CVE-2019-5736): a library cannot put that right, as it would have to execute its
/// caller once more.
#[allow(unsafe_code)] // clone3 asks that the caller has one thread, which Container::create and exec document
pub(crate) fn clone_first(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    if !berth_sys::reexec::is_sealed().step("inspect", "/proc/self/exe")? {
        return Err(Error::NotSealed);
    }
    // SAFETY: Container::create and Container::exec are documented to be called from a single-threaded process.
    unsafe { clone3(Clone3 { flags, cgroup }) }.step("clone", "init")
}

pub(crate) fn check_console(terminal: bool, console: &Console) -> Result<()> {
    match (terminal, console) {
        (true, Console::None) => Err(Error::invalid(
            "process.terminal",
            "is set, but there is nowhere to send the terminal; hint: give --console-socket",
        )),
        (false, Console::Socket(_) | Console::Receive) => Err(Error::invalid(
            "process.terminal",
            "is not set, but a console socket is given",
        )),
        _ => Ok(()),
    }
}

/// Connects before anything is made: a wrong path is the caller's most common mistake.
pub(crate) fn connect_console(console: &Console) -> Result<Option<OwnedFd>> {
    let Console::Socket(path) = console else {
        return Ok(None);
    };
    connect(path).map(Some)
}

fn connect(path: &Path) -> Result<OwnedFd> {
    let socket =
        std::os::unix::net::UnixStream::connect(path).map_err(|e| Error::path("connect to", path, e))?;
    Ok(socket.into())
}

pub(crate) fn connect_listener(
    seccomp: Option<&oci_spec::runtime::LinuxSeccomp>,
    filter: Option<&Filter>,
) -> Result<Option<OwnedFd>> {
    match (seccomp.and_then(|s| s.listener_path().as_ref()), filter) {
        (Some(path), Some(filter)) if filter.notifies() => connect(path).map(Some),
        _ => Ok(None),
    }
}

fn record(id: &ContainerId, spec: &ContainerSpec, cgroup: CgroupPath, fifo: bool) -> Result<Record> {
    let all = spec.spec.hooks().as_ref();
    let created = jiff::Timestamp::now();
    Ok(Record {
        oci_version: spec.spec.version().clone(),
        id: id.to_string(),
        pid: 0,
        start_time: 0,
        bundle: spec.bundle.clone(),
        rootfs: spec.rootfs.clone(),
        created: created.to_string(),
        owner: rustix::process::getuid().as_raw(),
        annotations: spec.spec.annotations().clone().unwrap_or_default(),
        // Also one that is the runtime's: exec may be called from another.
        namespaces: spec.namespaces.all() | bit(Ns::Mount),
        shared_mounts: spec.namespaces.shares_mounts(),
        cgroup,
        fifo,
        poststart: hooks::of(all, "poststart").to_vec(),
        poststop: hooks::of(all, "poststop").to_vec(),
    })
}

/// Makes the FIFO under its hidden name and opens it for init. Both ways, so that init's read waits for a byte instead of
/// ending when nobody has it open; by descriptor, because the path means something else inside.
fn make_fifo(root: &StateRoot, id: &ContainerId) -> Result<OwnedFd> {
    let path = root.hidden_fifo(id);
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|e| Error::path("make", &path, e))?;
    rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::path("open", &path, e))
}

fn write_id_maps(pid: i32, spec: &ContainerSpec) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::write(&path, text).map_err(|e| Error::io("write", path, e))
    };
    if !rustix::process::geteuid().is_root() {
        // user_namespaces(7): without privilege over the parent namespace, gid_map asks for this first.
        write("setgroups", "deny")?;
    }
    write("uid_map", &spec.uid_map)?;
    write("gid_map", &spec.gid_map)
}

/// Aside, then renamed: whoever watches for the file never reads half a number.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::path("write", path, io::ErrorKind::InvalidInput))?;
    let mut aside = std::ffi::OsString::from(".");
    aside.push(name);
    let aside = path.with_file_name(aside);
    std::fs::write(&aside, pid.to_string())
        .and_then(|()| std::fs::rename(&aside, path))
        .map_err(|e| Error::path("write", path, e))
}
