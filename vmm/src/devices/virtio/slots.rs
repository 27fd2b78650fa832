//! Places for virtio devices: registers, interrupt and notifications of each.

use std::sync::{Arc, Mutex};

use super::endpoint::{Endpoint, Shared};
use super::mmio::{MMIO_LEN, Transport};
use crate::arch::x86_64::layout;
use crate::bus::Bus;
use crate::error::Result;
use crate::vm::Vm;

/// Where `QueueNotify` lies among a device's registers.
const NOTIFY: u64 = virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY as u64;

/// Devices in their places, in order.
pub(crate) type Slots = Vec<Arc<Mutex<Transport>>>;

/// Puts devices into the places [`layout::virtio`] names, which the ACPI tables tell the guest of, in this order.
///
/// # Errors
///
/// When KVM has no more events.
pub(crate) fn fill(devices: Vec<Arc<Shared>>, vm: &Vm, mmio: &mut Bus) -> Result<(Vec<Endpoint>, Slots)> {
    let mut endpoints = Vec::with_capacity(devices.len());
    let mut slots = Vec::with_capacity(devices.len());
    for (number, shared) in devices.into_iter().enumerate() {
        let (registers, irq) = layout::virtio(number);
        vm.connect(shared.line(), irq)?;
        for (queue, bell) in (0..).zip(shared.bells()) {
            vm.bell(bell, registers + NOTIFY, queue)?;
        }
        let transport = Transport::new(shared.clone(), vm.memory.clone());
        let transport = Arc::new(Mutex::new(transport));
        mmio.attach(registers, MMIO_LEN, transport.clone());
        slots.push(transport);
        endpoints.push(Endpoint::new(shared));
    }
    Ok((endpoints, slots))
}
