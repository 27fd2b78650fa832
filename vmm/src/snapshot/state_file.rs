//! The file with everything but a machine's memory.
//!
//! ```text
//! "berth-vm"   version: u32   length of what follows the head: u64   its SHA-256   state, in postcard
//! ```
//!
//! Numbers are little-endian. postcard does not say what it holds: another order of the same fields is another version.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Error, State, memory_file};

const MAGIC: &[u8; 8] = b"berth-vm";
/// Of the state's fields.
pub const VERSION: u32 = 2;
/// The longest file that is read: 32 processors take half a MiB, settings the rest.
pub const STATE_MAX: usize = 8 << 20;
const CHECKSUM_LEN: usize = 32;
const HEAD_LEN: usize = 8 + 4 + 8 + CHECKSUM_LEN;

/// Writes a state to an empty file. Blocks until it is durable.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Large`] for what could not be read again.
pub(super) fn write(mut file: &File, state: &State) -> Result<(), Error> {
    let bytes = encode(state)?;
    file.write_all(&bytes).map_err(Error::io("write"))?;
    file.sync_all().map_err(Error::io("sync"))
}

/// Reads a state.
///
/// # Errors
///
/// Any [`Error`] but those of memory.
pub(super) fn read(path: &Path) -> Result<State, Error> {
    // Most are no longer.
    let mut bytes = Vec::with_capacity(64 << 10);
    let file = memory_file::open_file(path)?;
    file.take(STATE_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read"))?;
    decode(&bytes)
}

/// What version a file says it is.
///
/// # Errors
///
/// Those of [`read`] for what does not begin as one.
pub(super) fn version(path: &Path) -> Result<u32, Error> {
    let mut head = Vec::new();
    let file = memory_file::open_file(path)?;
    file.take((MAGIC.len() + 4) as u64)
        .read_to_end(&mut head)
        .map_err(Error::io("read"))?;
    let version = head.strip_prefix(MAGIC).and_then(|rest| rest.try_into().ok());
    version.map(u32::from_le_bytes).ok_or(Error::Unknown)
}

pub(super) fn encode(state: &State) -> Result<Vec<u8>, Error> {
    let state = postcard::to_stdvec(state).map_err(Error::Malformed)?;
    if HEAD_LEN + state.len() > STATE_MAX {
        return Err(Error::Large);
    }
    let mut bytes = Vec::with_capacity(HEAD_LEN + state.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((state.len() as u64).to_le_bytes());
    bytes.extend(Sha256::digest(&state));
    bytes.extend(state);
    Ok(bytes)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<State, Error> {
    if bytes.len() > STATE_MAX {
        return Err(Error::Large);
    }
    let after_magic = bytes.strip_prefix(MAGIC).ok_or(Error::Unknown)?;
    let short = Error::Length {
        said: (HEAD_LEN - MAGIC.len()) as u64,
        there: after_magic.len() as u64,
    };
    let Some((version, rest)) = after_magic.split_first_chunk() else {
        return Err(short);
    };
    // What follows is another version's to say.
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let Some((length, rest)) = rest.split_first_chunk() else {
        return Err(short);
    };
    let Some((checksum, state)) = rest.split_first_chunk::<CHECKSUM_LEN>() else {
        return Err(short);
    };
    let (said, there) = (u64::from_le_bytes(*length), state.len() as u64);
    if said != there {
        return Err(Error::Length { said, there });
    }
    if Sha256::digest(state).as_slice() != checksum {
        return Err(Error::Checksum);
    }
    let (decoded, rest) = postcard::take_from_bytes(state).map_err(Error::Malformed)?;
    if !rest.is_empty() {
        return Err(Error::Malformed(postcard::Error::SerdeDeCustom));
    }
    Ok(decoded)
}
