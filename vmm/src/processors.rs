//! The virtual processors of a running machine: a thread each, which can be made to stand.
//!
//! ```text
//! start:  threads, each with its filter ─► all stand at the gate ─► the event loop takes its filter
//! pause:  gate closed ─► signal ─► KVM_RUN returns, or the exit it was in is finished ─► the thread stands at the gate
//! save:   each thread that stands reads its processor's state and hands it over
//! resume: gate open ───► all go on where they were
//! ```

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_ioctls::VcpuFd;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::arch::x86_64::processor::Processor;
use crate::bus::Bus;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::metrics::Metrics;
use crate::seccomp::{Filter, Filters};
use crate::vcpu;
use crate::vm::Vm;

/// A signal that comes before `KVM_RUN` and after the look at the gate is lost; after this it is sent again.
const AGAIN: Duration = Duration::from_millis(1);

/// What a machine's processors have in common.
pub(crate) struct Shared {
    pub(crate) ports: Arc<Bus>,
    pub(crate) mmio: Arc<Bus>,
    pub(crate) metrics: Arc<Metrics>,
    /// Keeps guest memory mapped: an address given back while a processor runs would be the guest's still, whatever lies
    /// there next.
    pub(crate) _vm: Arc<Vm>,
}

/// The threads, of which the first to end ends the machine.
pub(crate) struct Processors {
    threads: Vec<JoinHandle<()>>,
    gate: Arc<Gate>,
    exits: mpsc::Receiver<Exit>,
    saved: mpsc::Receiver<Saved>,
}

/// A processor's number and state.
type Saved = (usize, Result<Processor>);

impl Processors {
    /// Makes them stand, ready to run, this thread and theirs confined by `filters`. `ended` is written to when the machine has
    /// ended. `alone`: this process ends when they cannot start; otherwise this thread is confined only once they can.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when there are no more threads to be had, or one cannot be confined. Then none has run.
    pub(crate) fn start(
        vcpus: Vec<VcpuFd>,
        shared: Shared,
        ended: &EventFd,
        filters: Filters,
        alone: bool,
    ) -> Result<Processors> {
        register_signal_handler(SIGRTMIN(), on_kick)
            .map_err(|e| failed("handle the signal that pauses processors")(e.into()))?;
        let Filters {
            processor,
            event_loop,
        } = filters;
        let gate = Arc::new(Gate::shut());
        let begun = spawn(vcpus, shared, ended, &processor, &gate);
        // After the threads: from then on this one could make no other.
        let begun = begun.and_then(|(processors, confined)| {
            if alone {
                // Before they are ready, because each filter takes the kernel a while, and so all take it together.
                event_loop.install()?;
            }
            for _ in &processors.threads {
                confined.recv().expect("each thread says how it went")?;
            }
            if !alone {
                // Last: a second start, when this one fails, does what no filter allows.
                event_loop.install()?;
            }
            Ok(processors)
        });
        if begun.is_err() {
            gate.give_up();
            gate.open();
        }
        begun
    }

    /// How the machine ended, if it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.exits.try_recv() {
            Ok(exit) => Some(exit),
            Err(mpsc::TryRecvError::Empty) => None,
            // Threads that went without a word panicked.
            Err(mpsc::TryRecvError::Disconnected) => Some(Exit::Failed),
        }
    }

    /// Whether none of them runs any more.
    pub(crate) fn have_ended(&self) -> bool {
        self.gate.count().gone == self.threads.len()
    }

    /// Waits until all stand. What they were doing is done, and they touch neither memory nor devices.
    pub(crate) fn pause(&self) {
        self.gate.close(self.threads.len(), || {
            for thread in &self.threads {
                // Fails for one that has ended, which stands for good.
                let _ = thread.kill(SIGRTMIN());
            }
        });
    }

    /// The state of each, in their order; `registers` are the machine registers to read. All of them must stand.
    ///
    /// # Errors
    ///
    /// Those of [`Processor::save`]; [`Error::Events`] when one has ended.
    pub(crate) fn save(&self, registers: Vec<u32>) -> Result<Vec<Processor>> {
        if !self.gate.ask(self.threads.len(), registers) {
            let ended = io::Error::other("the guest has ended");
            return Err(failed("read a processor's state")(ended));
        }
        let mut all: Vec<Saved> = self.saved.iter().take(self.threads.len()).collect();
        all.sort_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, state)| state).collect()
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        self.gate.open();
    }
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Events { operation, source }
}

/// Makes the threads, which stand at the gate once they are confined, or have told that they cannot be.
fn spawn(
    vcpus: Vec<VcpuFd>,
    shared: Shared,
    ended: &EventFd,
    filter: &Filter,
    gate: &Arc<Gate>,
) -> Result<(Processors, mpsc::Receiver<Result<()>>)> {
    let shared = Arc::new(shared);
    let (sender, exits) = mpsc::channel();
    let (ready, confined) = mpsc::channel();
    let (save, saved) = mpsc::channel();
    let mut threads = Vec::with_capacity(vcpus.len());
    for (id, vcpu) in vcpus.into_iter().enumerate() {
        let (shared, gate, sender) = (shared.clone(), gate.clone(), sender.clone());
        let (filter, ready, save) = (filter.clone(), ready.clone(), save.clone());
        let ended = ended.try_clone().map_err(failed("share an event"))?;
        let thread = std::thread::Builder::new()
            .name(format!("vcpu {id}"))
            .spawn(move || {
                // Whoever waits for it is there, or has given up.
                let _ = ready.send(filter.install());
                drop((filter, ready));
                let stand = |vcpu: &VcpuFd| {
                    gate.stand_and(|registers| {
                        // Whoever asked waits for it.
                        let _ = save.send((id, Processor::save(vcpu, registers)));
                    });
                };
                stand(&vcpu);
                if gate.is_given_up() {
                    return;
                }
                let exit = vcpu::run(vcpu, &shared, || gate.is_closed(), stand);
                // The first to end ends the machine; nobody listens to the others.
                let _ = sender.send(exit);
                gate.leave();
                // Fails only when it overflows, and then it has been told.
                let _ = ended.write(1);
            })
            .map_err(failed("start a processor's thread"))?;
        threads.push(thread);
    }
    let processors = Processors {
        threads,
        gate: gate.clone(),
        exits,
        saved,
    };
    Ok((processors, confined))
}

/// The signal's work is done when it interrupts a system call.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Where processors stand while the machine is paused.
#[derive(Default)]
pub(crate) struct Gate {
    /// Read by processors between two exits: no lock.
    closed: AtomicBool,
    count: Mutex<Count>,
    changed: Condvar,
}

#[derive(Default)]
struct Count {
    /// Threads at the gate.
    standing: usize,
    /// Threads that have ended.
    gone: usize,
    /// Nobody is to run any more.
    given_up: bool,
    /// How often those that stand were asked for their state, and the machine registers that belong to it.
    asked: (usize, Arc<[u32]>),
}

impl Gate {
    /// One that is closed before anybody comes.
    fn shut() -> Gate {
        Gate {
            closed: AtomicBool::new(true),
            ..Gate::default()
        }
    }

    /// Who stands, or comes later, is to leave when the gate opens.
    fn give_up(&self) {
        self.count().given_up = true;
    }

    fn is_given_up(&self) -> bool {
        self.count().given_up
    }

    /// Whether a processor is to finish what it does, and stand.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Stands until the gate opens.
    pub(crate) fn stand(&self) {
        self.stand_and(|_| {});
    }

    /// Stands until the gate opens, and meanwhile does `save` each time somebody asks.
    fn stand_and(&self, mut save: impl FnMut(&[u32])) {
        let mut count = self.count();
        count.standing += 1;
        self.changed.notify_all();
        let mut done = count.asked.0;
        while self.is_closed() {
            if count.asked.0 == done {
                count = self.changed.wait(count).unwrap_or_else(PoisonError::into_inner);
            } else {
                let (asked, registers) = count.asked.clone();
                done = asked;
                drop(count);
                save(&registers);
                count = self.count();
            }
        }
        count.standing -= 1;
    }

    /// Asks so many threads for their state; whether all of them stand.
    fn ask(&self, threads: usize, registers: Vec<u32>) -> bool {
        let mut count = self.count();
        // One that has just been made may not have come yet, and one that ended never comes.
        while count.standing + count.gone < threads {
            count = self.changed.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
        if count.gone > 0 {
            return false;
        }
        count.asked = (count.asked.0 + 1, registers.into());
        self.changed.notify_all();
        true
    }

    /// A thread ends.
    pub(crate) fn leave(&self) {
        self.count().gone += 1;
        self.changed.notify_all();
    }

    /// Waits until all of so many threads stand or have ended; `kick` makes them look.
    pub(crate) fn close(&self, threads: usize, kick: impl Fn()) {
        self.closed.store(true, Ordering::Release);
        let mut count = self.count();
        while count.standing + count.gone < threads {
            kick();
            let waited = self.changed.wait_timeout(count, AGAIN);
            count = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn open(&self) {
        // Under the lock: a thread that looked and found it closed waits by the time it hears of this.
        let count = self.count();
        self.closed.store(false, Ordering::Release);
        drop(count);
        self.changed.notify_all();
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn who_stands_does_nothing_until_the_gate_opens() {
        let gate = Arc::new(Gate::default());
        let steps: Arc<[AtomicU64; 3]> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..3)
            .map(|id| {
                let (gate, steps, over) = (gate.clone(), steps.clone(), over.clone());
                std::thread::spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        if gate.is_closed() {
                            gate.stand();
                        }
                        steps[id].fetch_add(1, Ordering::SeqCst);
                    }
                    gate.leave();
                })
            })
            .collect();
        let now = || steps.each_ref().map(|step| step.load(Ordering::SeqCst));
        for _ in 0..500 {
            gate.close(3, || {});
            let before = now();
            std::thread::yield_now();
            assert_eq!(now(), before);
            gate.open();
        }
        over.store(true, Ordering::SeqCst);
        // Who ends needs not be waited for.
        gate.close(3, || {});
        gate.open();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        gate.close(3, || {});
    }
}
