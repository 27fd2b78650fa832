//! Confinement of threads to the system calls they need (seccomp(2)), from before the guest's first instruction.
//!
//! ```text
//! start of the process: no new privileges, one heap, a handler for SIGSYS
//! start of the machine: each processor's thread takes its filter and stands ─► the event loop takes its own ─► all go
//! ```
//!
//! Until then the process has met nothing of the guest's, and opens kernels, disks and TAPs. A filter is there for as long as
//! its thread is. What is on no list ends the process with [`Exit::Forbidden`].
#![allow(unsafe_code)] // a signal's handler, and a setting of the C library's heap

mod filters;
mod program;

use std::io;

use libc::{c_int, c_void, siginfo_t};
use seccompiler::{BpfProgram, apply_filter};
use vmm_sys_util::signal::register_signal_handler;

use crate::error::{Error, Result};
use crate::exit::Exit;

/// Whether threads are confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// Each to its list.
    On,
    /// They may do what the process may.
    Off,
}

impl Seccomp {
    /// Prepares the process. For its start: threads and memory that are there already keep what they have.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when the kernel refuses.
    pub fn prepare(self) -> Result<()> {
        // Filters or not: this process never executes another, and none it could be made to execute shall have more rights.
        rustix::thread::set_no_new_privs(true).map_err(|e| failed("give up new privileges")(e.into()))?;
        if self == Seccomp::Off {
            return Ok(());
        }
        // SAFETY: this process has one thread and has not asked for anything else of its heap. A heap for each thread would
        // read files when it shrinks (`/proc/sys/vm/overcommit_memory`), which no processor's thread may.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        register_signal_handler(libc::SIGSYS, on_forbidden)
            .map_err(|e| failed("handle the signal of forbidden system calls")(e.into()))
    }

    /// Filters for the threads every machine has; `jailed`, the event loop opens no files, for it gets them opened.
    pub(crate) fn filters(self, jailed: bool) -> Filters {
        let event_loop = if jailed {
            filters::JAILED_LOOP
        } else {
            filters::EVENT_LOOP
        };
        Filters {
            processor: self.filter(filters::PROCESSOR),
            event_loop: self.filter(event_loop),
        }
    }

    /// The filter of a shared directory's thread. By itself: most machines have none, and compiling it is part of their start.
    pub(crate) fn share(self) -> Filter {
        self.filter(filters::SHARE)
    }

    fn filter(self, tables: &[&[filters::Allowed]]) -> Filter {
        match self {
            Seccomp::On => Filter(Some(program::compile(tables))),
            Seccomp::Off => Filter(None),
        }
    }
}

/// A filter for each kind of thread that every machine has.
#[derive(Clone)]
pub(crate) struct Filters {
    pub(crate) processor: Filter,
    pub(crate) event_loop: Filter,
}

/// What a thread may do; everything, when there is none.
#[derive(Clone)]
pub(crate) struct Filter(Option<BpfProgram>);

impl Filter {
    /// Confines the calling thread, for good.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when the kernel refuses.
    pub(crate) fn install(&self) -> Result<()> {
        let Some(program) = &self.0 else {
            return Ok(());
        };
        apply_filter(program).map_err(|e| {
            let source = match e {
                seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => source,
                other => io::Error::other(other),
            };
            failed("confine a thread to its system calls")(source)
        })
    }
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Events { operation, source }
}

/// Ends the process, with a line that names the system call. It may have come at any point of any thread: nothing here takes a
/// lock or memory.
extern "C" fn on_forbidden(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a handler registered with SA_SIGINFO, as this one is, the context it interrupted.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let rax = usize::try_from(libc::REG_RAX).expect("an index");
    let mut line = Line::default();
    line.add(b"berth-vmm: a thread made system call ");
    line.add_number(context.uc_mcontext.gregs[rax].cast_unsigned());
    line.add(b", which its seccomp filter forbids\n");
    // SAFETY: both are calls a handler may make (signal-safety(7)); the bytes are there.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length);
        libc::_exit(Exit::Forbidden.status().into());
    }
}

/// A line without memory of its own. What is too long is cut.
struct Line {
    bytes: [u8; 128],
    length: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line {
            bytes: [0; 128],
            length: 0,
        }
    }
}

impl Line {
    fn add(&mut self, text: &[u8]) {
        for (to, from) in self.bytes[self.length..].iter_mut().zip(text) {
            *to = *from;
            self.length += 1;
        }
    }

    fn add_number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b"0123456789"[usize::try_from(number % 10).expect("a digit")];
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.add(&digits[first..]);
    }
}

#[cfg(test)]
mod tests;
