//! Frames: four bytes of length, little endian, and as many bytes of JSON. The length is checked before anything is
//! allocated, and memory grows with the bytes that come, not with those announced.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest body. Configurations are some ten KiB; the largest image's is far below.
pub const FRAME_MAX: usize = 4 << 20;

const HEADER_LEN: usize = 4;
/// How much is made room for at a time.
const STEP: usize = 64 << 10;

/// Why no frame came or went.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are the objects their variant's text names
pub enum Error {
    /// The other side announces, or this one was to send, too much.
    #[error("frame of {length} bytes: at most {FRAME_MAX} are taken")]
    TooLong { length: usize },
    /// The body is not what was expected.
    #[error("frame is no message of this protocol")]
    Malformed(#[from] serde_json::Error),
    /// The other side ended in the middle of a frame.
    #[error("connection ended within a frame")]
    Cut,
    /// The connection failed.
    #[error("connection")]
    Io(#[from] io::Error),
}

/// A message with its length before it.
///
/// # Errors
///
/// [`Error::TooLong`].
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; HEADER_LEN];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEADER_LEN;
    match u32::try_from(length) {
        Ok(header) if length <= FRAME_MAX => frame[..HEADER_LEN].copy_from_slice(&header.to_le_bytes()),
        _ => return Err(Error::TooLong { length }),
    }
    Ok(frame)
}

/// Sends one message; blocks as `to` does.
///
/// # Errors
///
/// [`Error::TooLong`]; [`Error::Io`] of the connection.
pub fn send(to: &mut impl Write, message: &impl Serialize) -> Result<(), Error> {
    Ok(to.write_all(&encode(message)?)?)
}

/// Takes one message, and not a byte that follows it; blocks as `from` does. None when the other side has ended instead.
///
/// # Errors
///
/// All of [`Error`].
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, Error> {
    let mut incoming = Incoming::default();
    loop {
        match incoming.advance(from)? {
            Progress::Frame(body) => return Ok(Some(serde_json::from_slice(&body)?)),
            Progress::Partial => {}
            Progress::Ended => return Ok(None),
        }
    }
}

/// A frame of which part has come.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Header and body.
    bytes: Vec<u8>,
    /// How many bytes of it have come.
    filled: usize,
}

/// What one read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The body of a whole frame.
    Frame(Vec<u8>),
    /// More is to come.
    Partial,
    /// The other side has ended, between frames.
    Ended,
}

impl Incoming {
    /// Reads once, at most to the end of this frame.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`], [`Error::Cut`]; [`Error::Io`], also when a connection that does not block has nothing now.
    pub fn advance(&mut self, from: &mut impl Read) -> Result<Progress, Error> {
        let wanted = match self.length()? {
            None => HEADER_LEN,
            Some(length) => HEADER_LEN + length,
        };
        let room = wanted.min(self.filled + STEP);
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let read = loop {
            match from.read(&mut self.bytes[self.filled..room]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if read == 0 {
            return if self.filled == 0 {
                Ok(Progress::Ended)
            } else {
                Err(Error::Cut)
            };
        }
        self.filled += read;
        if self
            .length()?
            .is_some_and(|length| self.filled == HEADER_LEN + length)
        {
            let mut body = std::mem::take(self).bytes;
            body.drain(..HEADER_LEN);
            return Ok(Progress::Frame(body));
        }
        Ok(Progress::Partial)
    }

    /// The body's, once the header is there.
    fn length(&self) -> Result<Option<usize>, Error> {
        let Some(header) = self.bytes[..self.filled].first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
        if length > FRAME_MAX {
            return Err(Error::TooLong { length });
        }
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of `step`.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.step.min(buffer.len()).min(self.bytes.len());
            buffer[..n].copy_from_slice(&self.bytes[..n]);
            self.bytes = &self.bytes[n..];
            Ok(n)
        }
    }

    #[test]
    fn what_is_sent_is_received_and_nothing_behind_it_is_touched() {
        let long = "x".repeat(3 * STEP);
        for step in [1, 3, 4096, usize::MAX] {
            let mut bytes = encode(&long).unwrap();
            bytes.extend(encode(&"second").unwrap());
            bytes.extend_from_slice(b"raw");
            let mut from = Trickle { bytes: &bytes, step };
            assert_eq!(receive::<String>(&mut from).unwrap().unwrap(), long);
            assert_eq!(receive::<String>(&mut from).unwrap().unwrap(), "second");
            assert_eq!(from.bytes, b"raw");
        }
    }

    #[test]
    fn an_end_between_frames_is_an_end_and_within_one_an_error() {
        assert!(receive::<String>(&mut &b""[..]).unwrap().is_none());
        for cut in [&b"\x05"[..], b"\x05\0\0\0", b"\x05\0\0\0\"abc"] {
            assert!(
                matches!(receive::<String>(&mut &cut[..]), Err(Error::Cut)),
                "{cut:?}"
            );
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_a_byte_of_it_is_awaited() {
        let header = u32::try_from(FRAME_MAX + 1).unwrap().to_le_bytes();
        let mut incoming = Incoming::default();
        let error = incoming.advance(&mut &header[..]).unwrap_err();
        assert!(
            matches!(error, Error::TooLong { length } if length == FRAME_MAX + 1),
            "{error}"
        );
        assert!(incoming.bytes.capacity() <= STEP);
        let error = encode(&"x".repeat(FRAME_MAX)).unwrap_err();
        assert!(matches!(error, Error::TooLong { .. }), "{error}");
    }

    #[test]
    fn memory_grows_with_what_comes_and_not_with_what_is_announced() {
        let mut bytes = u32::try_from(FRAME_MAX).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(b"\"only this\"");
        let mut from = &bytes[..];
        let mut incoming = Incoming::default();
        while !from.is_empty() {
            assert_eq!(incoming.advance(&mut from).unwrap(), Progress::Partial);
        }
        assert!(
            incoming.bytes.capacity() <= 2 * STEP,
            "{}",
            incoming.bytes.capacity()
        );
    }

    #[test]
    fn an_empty_or_foreign_body_is_malformed() {
        for body in [&b""[..], b"{", b"\xff\xfe", b"{\"Reboot\":1}"] {
            let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
            bytes.extend_from_slice(body);
            let error = receive::<crate::protocol::Request>(&mut &bytes[..]).unwrap_err();
            assert!(matches!(error, Error::Malformed(_)), "{body:?}: {error}");
        }
    }
}
