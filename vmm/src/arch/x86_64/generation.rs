//! The machine's generation id ("Virtual Machine Generation ID", Microsoft 2012): 16 bytes that are others after each restore, so
//! that a guest finds out that it is not the only one with its memory. Linux' `vmgenid` makes its random numbers others too.

use rustix::rand::{GetRandomFlags, getrandom};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::layout;
use crate::error::{Error, Result};

/// Bytes of an id.
const LENGTH: usize = 16;

/// Writes another id. Whoever runs the machine raises [`layout::GENERATION_IRQ`] when its guest knew the one before.
///
/// # Errors
///
/// [`Error::Events`] when the kernel gives no random numbers.
pub(crate) fn renew(memory: &GuestMemoryMmap) -> Result<()> {
    let mut id = [0; LENGTH];
    // Comes whole: 16 bytes are not interrupted (getrandom(2)).
    getrandom(&mut id, GetRandomFlags::empty()).map_err(|source| Error::Events {
        operation: "make a generation id",
        source: source.into(),
    })?;
    memory
        .write_slice(&id, GuestAddress(layout::GENERATION_ID))
        .map_err(Error::write("the generation id"))
}
