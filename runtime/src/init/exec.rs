//! The steps of one more process in a container, in order. A list of its own: most of init's steps are behind it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_cgroups::Entry;
use oci_spec::runtime::LinuxNamespaceType as Ns;
use rustix::thread::ThreadNameSpaceType;

use super::create::join_keyring;
use super::identity::{self, LoadFilter};
use super::rootfs::{procfs::Proc, shared};
use super::{fail, join, program, stdio};
use crate::error::{Result, Step};
use crate::id::ContainerId;
use crate::process::ProcessSpec;
use crate::seccomp::Filter;
use crate::state::Record;
use crate::sync::{Channel, Message};
use crate::validate::bit;

/// All that the process is given; borrowed from the parent's memory across clone.
pub(crate) struct Exec<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) record: &'a Record,
    pub(crate) process: &'a ProcessSpec,
    pub(crate) personality: Option<u64>,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) seccomp: Option<&'a oci_spec::runtime::LinuxSeccomp>,
    pub(crate) listener: Option<BorrowedFd<'a>>,
    pub(crate) entry: &'a Entry,
    /// The container's init: whose namespaces are entered.
    pub(crate) init: BorrowedFd<'a>,
    pub(crate) streams: Option<&'a [OwnedFd; 3]>,
    pub(crate) preserve_fds: u32,
}

/// Becomes the program or tells why not.
pub(crate) fn run(exec: &Exec<'_>, channel: &Channel) -> ! {
    let Err(error) = steps(exec, channel);
    fail(channel, &error)
}

fn steps(exec: &Exec<'_>, channel: &Channel) -> Result<std::convert::Infallible> {
    let process = exec.process;
    // From here on we can be seen from inside: nobody there may trace us or open our files.
    berth_sys::credentials::set_undumpable().step("guard", "the process")?;
    exec.entry.enter().step("enter", "the container's cgroup")?;
    // The host's /proc, while we still see it.
    identity::set_oom_score_adj(&Proc::open()?, "self", process.oom_score_adj)?;
    let kinds = u32::try_from(exec.record.namespaces).unwrap_or(u32::MAX);
    // All at once: the kernel then judges the user namespace first and the rest by it.
    rustix::thread::move_into_thread_name_spaces(exec.init, ThreadNameSpaceType::from_bits_retain(kinds))
        .step("join", "the container's namespaces")?;
    // A pid or time namespace takes effect for children.
    join::clone_sibling(channel, 0, exec.entry.clone_into())?;
    if exec.record.namespaces & bit(Ns::User) != 0 {
        join::become_root()?;
        berth_sys::credentials::set_undumpable().step("guard", "the process")?;
    }
    rustix::process::setsid().step("start", "a session")?;
    join_keyring(exec.id)?;
    if exec.record.shared_mounts {
        // Looked up again, as create did: a change of root that init made for itself is init's own.
        let root = shared::find(&exec.record.rootfs, true)?;
        shared::enter(root.as_fd())?;
    }

    if process.terminal {
        let console = stdio::open_terminal()?;
        stdio::attach_terminal(console.slave.as_fd(), process.console_size)?;
        channel.say(&Message::Console(console.master))?;
    } else if let Some(streams) = exec.streams {
        stdio::place(streams)?;
    }
    identity::set_priorities(process)?;
    identity::set_rlimits(process)?;
    if let Some(persona) = exec.personality {
        berth_sys::credentials::set_personality(persona).step("set", "linux.personality")?;
    }
    stdio::chown_to(process.uid);
    if process.selinux_label.is_some() || process.apparmor_profile.is_some() {
        identity::set_labels(&Proc::open()?, process)?;
    }
    let load = load_filter(exec, channel)?;
    identity::become_user(process, load.as_ref())?;
    program::enter_cwd(&process.cwd)?;
    let file = program::find(process)?;
    let env = program::environment(process);
    program::close_on_exec(exec.preserve_fds)?;
    berth_sys::credentials::reset_signals();
    channel.say(&Message::Ready)?;
    channel.wait_go()?;
    if process.no_new_privileges
        && let Some(load) = &load
    {
        load.load()?;
    }
    Err(program::execute(&file, process, &env))
}

fn load_filter<'a>(exec: &Exec<'a>, channel: &Channel) -> Result<Option<LoadFilter<'a>>> {
    let Some(filter) = exec.filter else {
        return Ok(None);
    };
    let listener = match exec.listener {
        Some(socket) => {
            channel.say(&Message::Pid)?;
            let pid = channel.wait_go()?;
            Some((socket, exec.record.for_listener(pid, exec.seccomp)))
        }
        None => None,
    };
    Ok(Some(LoadFilter { filter, listener }))
}
