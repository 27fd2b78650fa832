//! The machine's process as the keeper has it: to be asked, waited for, ended.
#![allow(unsafe_code)] // clone3(2)

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_cgroups::Entry;
use berth_sys::clone::{Clone3, Forked, clone3, exit_now};
use berth_sys::pidfd::{self, Exit};
use berth_sys::signals::{self, Held};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::link::{self, ANSWER_MAX, BEGUN, Begun, HEAD_LEN};
use super::{door, machine};
use crate::api::{Request, Response};
use crate::control::files::Outside;
use crate::control::{Controller, Plan};
use crate::error::{Error, Result};
use crate::jail::Jail;
use crate::jail::cgroup::{self, Group};
use crate::socket_file::SocketFile;

/// What ends the monitor from outside, once the keeper has put things away.
const ENDINGS: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// How the machine's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Status(u8),
    /// By this signal, or the keeper was sent it.
    Signal(i32),
}

impl From<crate::Exit> for End {
    fn from(exit: crate::Exit) -> End {
        End::Status(exit.status())
    }
}

/// A machine's process. It ends with this.
pub(super) struct Child {
    pidfd: OwnedFd,
    link: OwnedFd,
    /// As long as the machine has the other end.
    door: Option<OwnedFd>,
    /// vsock's path, which the machine may reach ports of.
    peers: Option<PathBuf>,
    /// Of the last message.
    number: u64,
    /// vsock's, which the machine cannot reach any more.
    socket: Option<SocketFile>,
    group: Option<Group>,
    signals: Held,
    /// The one the keeper was sent.
    signal: Option<i32>,
}

/// The machine does not answer, and is ended.
struct Broken;

impl Child {
    /// Makes the machine in a process of its own, and waits until it runs. `request` is who asked for it, to be counted there.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when there is no process to be had, [`Error::Machine`] with what the new one said.
    pub(super) fn start(controller: &mut Controller, plan: Plan, request: Option<&Request>) -> Result<Child> {
        Jail::check()?;
        let settings = plan.settings();
        let failed = |operation| move |source| Error::Events { operation, source };
        let flags = SocketFlags::CLOEXEC;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (ours, theirs) = pair.map_err(|e| failed("make a pair of sockets")(e.into()))?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|e| failed("set up a socket")(e.into()))?;
        let (machine_door, door) = door::pair().map_err(failed("make a pair of sockets"))?;
        let peers = plan.socket().map(Path::to_path_buf);
        let signals = signals::hold(&ENDINGS).map_err(failed("hold signals back"))?;
        let absent = peers.clone().filter(|path| path.symlink_metadata().is_err());
        let placement = &controller.jail().expect("the keeper is there for it").cgroup;
        // Otherwise it is made while the machine is.
        let group = cgroup::is_born_into().then(|| placement.make()).transpose()?;
        let entry = group.as_ref().map(Group::entry).transpose()?;
        let options = Clone3 {
            flags: u64::from(libc::CLONE_NEWPID.unsigned_abs()),
            cgroup: cgroup::birthplace(entry.as_ref()),
        };
        // SAFETY: this process has one thread: the keeper makes none, and threads of the machine are made after this, there.
        match unsafe { clone3(options) }.map_err(failed("make the machine's process"))? {
            Forked::Child => {
                drop(signals);
                if let Some(request) = request {
                    controller.has_fulfilled(request);
                }
                exit_now(machine::live(controller, plan, theirs, machine_door).into())
            }
            Forked::Parent { pidfd, .. } => {
                drop((theirs, machine_door, entry));
                let mut child = Child {
                    pidfd,
                    link: ours,
                    door: Some(door),
                    peers,
                    number: BEGUN,
                    socket: None,
                    group,
                    signals,
                    signal: None,
                };
                if child.group.is_none() {
                    child.group = Some(controller.jail().expect("as before").cgroup.make()?);
                }
                child.admit()?;
                let begun = child.hear(BEGUN).map(|bytes| link::decode::<Begun>(&bytes));
                // Whatever came of it.
                child.socket = absent.map(|path| SocketFile::of(&path));
                match begun {
                    Ok(Some(Ok(()))) => {
                        settings
                            .into_iter()
                            .for_each(|settings| controller.adopt(settings));
                        Ok(child)
                    }
                    Ok(Some(Err(why))) => Err(child.failed(Some(why))),
                    Ok(None) | Err(Broken) => Err(child.failed(None)),
                }
            }
        }
    }

    /// Hands over what it takes to enter the cgroup, if the process is not in it by now.
    fn admit(&self) -> Result<()> {
        let entry = self.group.as_ref().map(Group::entry).transpose()?;
        let tasks = entry.as_ref().map(Entry::tasks).unwrap_or_default();
        // One that has ended by now is heard of in a moment.
        let _ = berth_sys::fdpass::send(&self.link, &[0], &tasks);
        Ok(())
    }

    /// Has the machine do what a request asks for, with the files it names.
    ///
    /// # Errors
    ///
    /// Those of [`Outside::finish`]. That the machine is no more is an answer.
    pub(super) fn ask(&mut self, request: &Request, outside: Outside) -> Result<Response> {
        match self.exchange(request, &outside) {
            Ok(response) if response.is_fault() => Ok(response),
            Ok(response) => outside.finish().map(|()| response),
            Err(Broken) => Ok(Response::fault("the microVM has ended")),
        }
    }

    /// Readable when the process has ended, when the keeper is to end it, and when the machine asks for a connection.
    pub(super) fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let always = [self.pidfd.as_fd(), self.signals.as_fd()];
        always.into_iter().chain(self.door.as_ref().map(AsFd::as_fd))
    }

    /// How it ended, if it has. Ends it when the keeper is told to end, and answers it. Does not block.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when the kernel does not tell.
    pub(super) fn ended(&mut self) -> Result<Option<End>> {
        self.heed();
        let now = Some(std::time::Duration::ZERO);
        if pidfd::ended_within(&self.pidfd, now).map_err(failed("look at the machine's process"))? {
            self.end().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Waits for its end.
    fn end(&self) -> Result<End> {
        let exit = pidfd::wait(&self.pidfd).map_err(failed("wait for the machine's process"))?;
        Ok(match (self.signal, exit) {
            (Some(signal), _) | (None, Exit::Signal(signal)) => End::Signal(signal),
            (None, Exit::Code(code)) => End::Status(u8::try_from(code).unwrap_or(u8::MAX)),
        })
    }

    /// What a start ended with.
    fn failed(self, why: Option<String>) -> Error {
        if why.is_none() {
            self.kill();
        }
        match (self.end(), self.signal) {
            (Ok(_), Some(signal)) => Error::Stopped(signal),
            (Ok(end), None) => Error::Machine { why, end },
            (Err(e), _) => e,
        }
    }

    fn exchange(&mut self, request: &Request, outside: &Outside) -> Result<Response, Broken> {
        self.number += 1;
        let order = link::encode(self.number, request);
        let (head, rest) = order.split_at(HEAD_LEN);
        let spoken = self.say(head, rest, &outside.descriptors());
        let heard = spoken.and_then(|()| self.hear(self.number));
        let response = heard.and_then(|bytes| link::decode::<Response>(&bytes).ok_or(Broken));
        match response {
            Ok(response) if response.is_sound() => Ok(response),
            Ok(_) | Err(Broken) => {
                self.kill();
                Err(Broken)
            }
        }
    }

    fn say(&mut self, head: &[u8], mut rest: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), Broken> {
        // A fresh socket, or one whose last order was answered, has room for a head.
        berth_sys::fdpass::send(&self.link, head, files).map_err(|_| Broken)?;
        while !rest.is_empty() {
            match rustix::net::send(&self.link, rest, SendFlags::NOSIGNAL) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::AGAIN) => self.wait_for(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Broken),
            }
        }
        Ok(())
    }

    /// The next message, which is to have this number.
    fn hear(&mut self, number: u64) -> Result<Vec<u8>, Broken> {
        let mut bytes = [0; HEAD_LEN];
        self.fill(&mut bytes)?;
        match link::head(bytes) {
            (length, said) if said == number && length <= ANSWER_MAX => {
                let mut message = vec![0; length];
                self.fill(&mut message)?;
                Ok(message)
            }
            _ => Err(Broken),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Broken> {
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::net::recv(&self.link, &mut buffer[filled..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(Broken),
                Ok((count, _)) => filled += count,
                Err(Errno::AGAIN) => self.wait_for(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Broken),
            }
        }
        Ok(())
    }

    /// Waits until the link is ready, or the other end has gone. A keeper that is to end meanwhile ends the machine.
    fn wait_for(&mut self, what: PollFlags) -> Result<(), Broken> {
        let mut fds = vec![
            PollFd::new(&self.link, what),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        // The machine may wait for that before it hears what it is asked.
        fds.extend(self.door.as_ref().map(|door| PollFd::new(door, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(Broken),
        }
        self.heed();
        Ok(())
    }

    fn heed(&mut self) {
        if let Ok(Some(signal)) = signals::next(&self.signals) {
            self.signal = Some(signal);
            self.kill();
        }
        match self
            .door
            .as_ref()
            .map(|door| door::answer(door.as_fd(), self.peers.as_deref()))
        {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => self.door = None,
            Some(Err(_)) => {
                self.door = None;
                self.kill();
            }
        }
    }

    fn kill(&self) {
        // It may have ended.
        let _ = pidfd::send_signal(&self.pidfd, libc::SIGKILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        // Before its socket goes. It has been waited for when there is none.
        let _ = pidfd::wait(&self.pidfd);
    }
}

fn failed(operation: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Events { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    /// A process that only waits, and a machine's end of the link for a test to speak at.
    #[allow(clippy::zombie_processes)] // `Child` waits for it
    fn child() -> (Child, (UnixStream, door::Door)) {
        let process = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&process);
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (machine_door, door) = door::pair().unwrap();
        let child = Child {
            pidfd: pidfd_open(pid, PidfdFlags::empty()).unwrap(),
            link: ours.into(),
            door: Some(door),
            peers: None,
            number: BEGUN,
            socket: None,
            group: None,
            signals: signals::hold(&[]).unwrap(),
            signal: None,
        };
        (child, (theirs, machine_door))
    }

    fn request() -> Request {
        Request {
            method: "GET".into(),
            path: "/".into(),
            body: Vec::new(),
        }
    }

    /// What a client gets when the machine says this; and whether the machine lives on.
    fn answered(bytes: &[u8]) -> (Response, bool) {
        let (mut child, (mut machine, _door)) = child();
        machine.write_all(bytes).unwrap();
        drop(machine.shutdown(std::net::Shutdown::Write));
        let response = child.ask(&request(), Outside::Nothing).unwrap();
        let patience = Some(std::time::Duration::from_millis(500));
        let ended = response == over() && pidfd::ended_within(&child.pidfd, patience).unwrap();
        (response, !ended)
    }

    fn over() -> Response {
        Response::fault("the microVM has ended")
    }

    #[test]
    fn a_machine_that_answers_lives_on() {
        let response = Response::json(&["x"]);
        assert_eq!(answered(&link::encode(1, &response)), (response, true));
        let refused = Response::fault("no").deprecated(true);
        assert_eq!(answered(&link::encode(1, &refused)), (refused, true));
    }

    /// The number of a message that nobody waits for, lengths out of bounds, values that are none or more than one, and answers this
    /// monitor does not give.
    #[test]
    fn a_machine_that_breaks_the_rules_is_ended() {
        let done = Response::done();
        let sound = link::encode(1, &done);
        let mut long = vec![b'x'; HEAD_LEN + ANSWER_MAX + 1];
        let length = u32::try_from(ANSWER_MAX + 1).unwrap();
        long[..4].copy_from_slice(&length.to_le_bytes());
        long[4..HEAD_LEN].copy_from_slice(&1_u64.to_le_bytes());
        let mut more = sound.clone();
        more[0] += 1;
        more.push(0);
        for (what, bytes) in [
            ("nothing", Vec::new()),
            ("another number", link::encode(0, &done)),
            ("half a head", sound[..HEAD_LEN - 1].to_vec()),
            ("half a message", sound[..sound.len() - 1].to_vec()),
            ("more than a message", more),
            ("no answer", link::encode(1, &"hello")),
            // Status, body, deprecated: 200 with something that is not JSON, 200 without a body, 204 with one, 503.
            ("no JSON", link::encode(1, &(0_u32, Some("{"), false))),
            ("no body", link::encode(1, &(0_u32, None::<String>, false))),
            ("a body", link::encode(1, &(1_u32, Some("{}"), false))),
            ("another status", link::encode(1, &(3_u32, Some("{}"), false))),
        ] {
            assert_eq!(answered(&bytes), (over(), false), "{what}");
        }
        // Written while it is read: a socket does not hold it.
        let (mut child, (mut machine, _door)) = child();
        let writer = std::thread::spawn(move || machine.write_all(&long).is_ok());
        assert_eq!(child.ask(&request(), Outside::Nothing).unwrap(), over());
        drop(child);
        assert!(!writer.join().unwrap(), "nobody read it");
    }

    /// An order that the machine does not take keeps nobody from ending it.
    #[test]
    fn a_machine_that_hears_nothing_can_be_ended() {
        let (mut child, (mut machine, _door)) = child();
        let pidfd = child.pidfd.try_clone().unwrap();
        let killer = std::thread::spawn(move || {
            // It has begun to speak.
            machine.read_exact(&mut [0; 1]).unwrap();
            pidfd::send_signal(pidfd, libc::SIGKILL).unwrap();
            drop(machine);
        });
        let order = Request {
            body: vec![0; 8 << 20],
            ..request()
        };
        assert_eq!(child.ask(&order, Outside::Nothing).unwrap(), over());
        killer.join().unwrap();
    }
}
