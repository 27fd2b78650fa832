//! What a client may ask of the shim, and what is done about it.

use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use super::Shim;
use super::client::Wait;
use crate::container::Status;
use crate::flags::Signal;
use crate::record;
use crate::shim::lifecycle::Running;
use crate::shim::protocol::{self, Packet, Reply, Request};

impl Shim {
    pub(super) fn hear(&mut self, i: usize, running: Option<&mut Running>, buffer: &mut [u8]) {
        let packet = match protocol::receive(&self.clients[i].socket, buffer, RecvFlags::DONTWAIT) {
            Ok(packet) => packet,
            Err(rustix::io::Errno::AGAIN) => return,
            Err(_) => Packet::Gone,
        };
        match (packet, running) {
            (Packet::Stdin(bytes), Some(running)) if self.clients[i].stdin => {
                let bytes = bytes.to_vec();
                self.feed(running, &bytes);
            }
            (Packet::Stdin(_), _) => {}
            (Packet::Request(request), running) => {
                self.clients[i].asked = true;
                let answer = self.obey(i, &request, running);
                if let Some(reply) = answer {
                    self.clients[i].say(&reply.encode());
                }
            }
            _ => self.clients[i].gone = true,
        }
    }

    fn obey(&mut self, i: usize, request: &Request, running: Option<&mut Running>) -> Option<Reply> {
        let outcome = match (request, running) {
            (
                Request::Attach {
                    stdin,
                    stdout,
                    stderr,
                },
                _,
            ) => {
                let let_in = self.let_wait(i, Wait::Next);
                if let_in.is_ok() {
                    let client = &mut self.clients[i];
                    (client.stdin, client.stdout, client.stderr) = (*stdin, *stdout, *stderr);
                }
                let_in
            }
            (Request::Wait { last }, _) => {
                let wait = if *last { Wait::Last } else { Wait::Next };
                match self.let_wait(i, wait) {
                    Ok(()) => return None,
                    refused => refused,
                }
            }
            (Request::Resize { rows, columns }, Some(running)) => {
                if let (true, Some(master)) = (self.config.tty, &running.stdout) {
                    running.sandbox.resize(master, *rows, *columns);
                }
                return None;
            }
            (Request::StdinEof, Some(running)) => {
                if self.clients[i].stdin && !self.config.tty {
                    self.input_ended = true;
                    self.feed(running, &[]);
                }
                return None;
            }
            (Request::Kill { signal }, Some(running)) => {
                let ends = *signal == libc::SIGKILL || *signal == self.config.stop_signal.number();
                if ends {
                    self.state.stopped_by_user = true;
                    self.save();
                }
                let sent = self.signal(running, *signal);
                if ends && sent.is_ok() {
                    self.thaw(running);
                }
                sent
            }
            (Request::Stop { signal, timeout }, running) => {
                self.state.stopped_by_user = true;
                self.save();
                let told = self.let_wait_for_stop(i);
                let Some(running) = running else {
                    return told.err().map(Reply::failed);
                };
                if let Ok(seconds) = u64::try_from(*timeout) {
                    self.kill_at = Instant::now().checked_add(Duration::from_secs(seconds));
                }
                let sent = self.signal(running, *signal);
                if sent.is_ok() {
                    self.thaw(running);
                }
                match sent.and(told) {
                    Ok(()) => return None,
                    failed => failed,
                }
            }
            (Request::Pause, Some(running)) if self.state.status == Status::Running => running
                .sandbox
                .pause()
                .map(|()| self.state.status = Status::Paused),
            (Request::Unpause, Some(running)) if self.state.status == Status::Paused => running
                .sandbox
                .resume()
                .map(|()| self.state.status = Status::Running),
            (Request::Reload { limits }, running) => self.reload(*limits, running),
            _ => Err(format!("it is {}", self.state.status)),
        };
        if matches!(request, Request::Pause | Request::Unpause) && outcome.is_ok() {
            self.save();
            self.note(
                if *request == Request::Pause {
                    "pause"
                } else {
                    "unpause"
                },
                &[],
            );
        }
        Some(match outcome {
            Ok(()) => Reply::Done,
            Err(why) => Reply::failed(why),
        })
    }

    /// Lets a paused container take the signal that is to end it: a frozen process dies of nothing, on cgroup v1 not even of
    /// SIGKILL.
    pub(super) fn thaw(&mut self, running: &Running) {
        if self.state.status == Status::Paused {
            // One that stays frozen is paused as before, and can be killed again.
            if running.sandbox.resume().is_ok() {
                self.state.status = Status::Running;
                self.save();
            }
        }
    }

    fn signal(&self, running: &Running, signal: i32) -> std::result::Result<(), String> {
        let signal = Signal::from_number(signal).ok_or("no such signal")?;
        running.sandbox.signal(signal.number())?;
        self.note("kill", &[("signal", signal.number().to_string())]);
        Ok(())
    }

    fn reload(&mut self, limits: bool, running: Option<&mut Running>) -> std::result::Result<(), String> {
        let config = record::config(&self.errand.paths, &self.errand.id).map_err(|e| e.chain())?;
        if limits && let Some(running) = running {
            let value = crate::spec::resources::limits(&config.host.resources).map_err(|e| e.chain())?;
            running.sandbox.update(value)?;
        }
        self.config = config;
        Ok(())
    }
}
