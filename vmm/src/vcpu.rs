//! A virtual processor: a thread that runs guest code until the guest, or somebody else, ends it.

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::bus::Bus;
use crate::exit::Exit;

/// Runs a vCPU until the machine ends. Blocks; meant for a thread of its own.
pub(crate) fn run(mut vcpu: VcpuFd, ports: &Arc<Bus>, mmio: &Arc<Bus>) -> Exit {
    loop {
        let ended = match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                ports.read(port.into(), data);
                None
            }
            Ok(VcpuExit::IoOut(port, data)) => ports.write(port.into(), data),
            Ok(VcpuExit::MmioRead(address, data)) => {
                mmio.read(address, data);
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => mmio.write(address, data),
            // A kernel that stops a processor for ever (`hlt` with interrupts off) is run by KVM itself; we see this only
            // without an interrupt controller in the kernel.
            Ok(VcpuExit::Hlt | VcpuExit::Intr) => None,
            Ok(VcpuExit::SystemEvent(..)) => Some(Exit::PoweredOff),
            // Shutdown is a triple fault; the rest is what KVM itself could not do.
            Ok(_) => Some(Exit::Crashed),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => None,
            Err(_) => Some(Exit::Crashed),
        };
        if let Some(exit) = ended {
            return exit;
        }
    }
}
