//! A virtual processor: a thread that runs guest code until the guest, or somebody else, ends it.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::exit::Exit;
use crate::processors::Shared;

/// Runs a vCPU until the machine ends; when it `must_stand`, behind the instruction it is in, it does `stand`. Blocks; meant for a
/// thread of its own.
pub(crate) fn run(
    mut vcpu: VcpuFd,
    shared: &Shared,
    must_stand: impl Fn() -> bool,
    stand: impl Fn(&VcpuFd),
) -> Exit {
    let counts = &shared.metrics.vcpu;
    loop {
        if must_stand() {
            finish(&mut vcpu);
            stand(&vcpu);
        }
        let ended = match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                counts.exit_io_in.inc();
                shared.ports.read(port.into(), data);
                None
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                counts.exit_io_out.inc();
                shared.ports.write(port.into(), data)
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                counts.exit_mmio_read.inc();
                shared.mmio.read(address, data);
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                counts.exit_mmio_write.inc();
                shared.mmio.write(address, data)
            }
            // A kernel that stops a processor for ever (`hlt` with interrupts off) is run by KVM itself; we see this only
            // without an interrupt controller in the kernel.
            Ok(VcpuExit::Hlt | VcpuExit::Intr) => None,
            Ok(VcpuExit::SystemEvent(..)) => Some(Exit::PoweredOff),
            // Shutdown is a triple fault; the rest is what KVM itself could not do.
            Ok(other) => {
                log::error!("a processor cannot go on: {other:?}");
                Some(Exit::Crashed)
            }
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => None,
            Err(e) => {
                log::error!("a processor cannot go on: {e}");
                Some(Exit::Crashed)
            }
        };
        if let Some(exit) = ended {
            if exit == Exit::Crashed {
                counts.failures.inc();
            }
            return exit;
        }
    }
}

/// Brings the processor to the end of the instruction it is in: the answer to its last exit is with it only after another
/// `KVM_RUN` (Documentation/virt/kvm/api.rst, section 5). Then tells the guest that it stood, lest it take the pause for a
/// processor that hangs.
fn finish(vcpu: &mut VcpuFd) {
    vcpu.set_kvm_immediate_exit(1);
    // Returns at once, with EINTR.
    let _ = vcpu.run();
    vcpu.set_kvm_immediate_exit(0);
    // Fails for a guest that does not use KVM's clock.
    let _ = vcpu.kvmclock_ctrl();
}
