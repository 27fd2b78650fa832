//! The one thing left of a PC's firmware: code at the reset vector, where a kernel jumps that reboots "by BIOS".
//!
//! Stock kernels do that when nothing tells them better (`reboot=`): real mode, `f000:fff0`.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::layout;
use crate::devices::power::{RESET_AT, RESET_VALUE};
use crate::error::{Error, Result};

/// Writes the code: the ACPI reset register, and a halt that is never reached.
pub(crate) fn write(memory: &GuestMemoryMmap) -> Result<()> {
    let [low, high] = (layout::POWER_PORT + u16::from(RESET_AT)).to_le_bytes();
    let code = [
        0xba,
        low,
        high, // mov dx, port
        0xb0,
        RESET_VALUE, // mov al, value
        0xee,        // out dx, al
        0xf4,        // hlt
        0xeb,
        0xfd, // jmp to the hlt
    ];
    memory
        .write_slice(&code, GuestAddress(layout::RESET_VECTOR))
        .map_err(Error::write("the reset vector"))
}
