//! What keeper and machine say to each other, over a pair of connected Unix sockets.
//!
//! ```text
//! keeper  ─ descriptors of the cgroup to enter ──────────► machine
//! machine ─ Begun: made, or why not ─────────────────────► keeper
//! keeper  ─ number, Request, descriptors ────────────────► machine      one at a time
//! machine ─ the same number, Response ───────────────────► keeper
//! ```
//!
//! A message is its length, a number, and a value in postcard. What the machine says is not believed: it is bounded, has the number
//! that is waited for, and is an answer this monitor gives, or the machine is ended. What the keeper says is.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use berth_cgroups::Entry;
use berth_sys::fdpass;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{Request, Response};
use crate::control::files::Inside;
use crate::error::{Error, Result};

/// Bytes before a message: its length and its number, both little-endian.
pub(super) const HEAD_LEN: usize = 12;
/// The longest answer: the settings of as many devices as there can be, with long paths.
pub(super) const ANSWER_MAX: usize = 2 << 20;
/// The number of the first message, which nobody asked for.
pub(super) const BEGUN: u64 = 0;

/// Whether there is a machine now, or why there is none.
pub(super) type Begun = Result<(), String>;

/// A message as it goes over the wire.
pub(super) fn encode(number: u64, value: &impl Serialize) -> Vec<u8> {
    let value = postcard::to_stdvec(value).expect("plain data");
    let length = u32::try_from(value.len()).expect("requests and answers are bounded");
    let mut bytes = Vec::with_capacity(HEAD_LEN + value.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.extend(value);
    bytes
}

/// Length and number of the message with this head.
pub(super) fn head(bytes: [u8; HEAD_LEN]) -> (usize, u64) {
    let [a, b, c, d, number @ ..] = bytes;
    let length = u32::from_le_bytes([a, b, c, d]);
    (
        usize::try_from(length).expect("a 64-bit host"),
        u64::from_le_bytes(number),
    )
}

/// What a message says, if it is one value and nothing else.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// The machine's end. Readable when there is an order, and when the keeper has gone.
pub struct Orders(UnixStream);

impl Orders {
    pub(super) fn of(socket: OwnedFd) -> Orders {
        Orders(socket.into())
    }

    /// Takes the calling thread, the only one of its process, into the cgroup that the keeper made meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when the keeper has gone, [`Error::Jail`] when the kernel refuses.
    pub(super) fn enter_cgroup(&mut self) -> Result<()> {
        let (count, tasks) = fdpass::receive(&self.0, &mut [0]).map_err(failed)?;
        if count == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Entry::of_tasks(tasks).enter().map_err(|source| Error::Jail {
            operation: "enter the machine's cgroup",
            source,
        })
    }

    /// Tells the keeper how the start went.
    pub(super) fn begun(&mut self, begun: &Begun) -> Result<()> {
        self.send(&encode(BEGUN, begun))
    }

    /// Takes one order, has it obeyed by `handle`, and answers. Blocks until the order is all there; the keeper sends nothing but whole
    /// ones.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when the keeper has gone.
    pub(crate) fn on_event(&mut self, handle: &mut dyn FnMut(&Request, Inside) -> Response) -> Result<()> {
        let mut bytes = [0; HEAD_LEN];
        let (count, files) = fdpass::receive(&self.0, &mut bytes).map_err(failed)?;
        if count == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.0.read_exact(&mut bytes[count..]).map_err(failed)?;
        let (length, number) = head(bytes);
        let mut order = vec![0; length];
        self.0.read_exact(&mut order).map_err(failed)?;
        let request: Request = decode(&order).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        let response = handle(&request, Inside::of(files));
        let mut answer = encode(number, &response);
        if answer.len() > HEAD_LEN + ANSWER_MAX {
            answer = encode(number, &Response::fault("the answer is too long"));
        }
        self.send(&answer)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = rustix::io::retry_on_intr(|| {
                rustix::net::send(&self.0, rest, rustix::net::SendFlags::NOSIGNAL)
            });
            rest = &rest[sent.map_err(|e| failed(e.into()))?..];
        }
        Ok(())
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn failed(source: io::Error) -> Error {
    Error::Events {
        operation: "hear from the process that started the machine",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_with_its_files_and_is_answered_by_its_number() {
        let (keeper, machine) = UnixStream::pair().unwrap();
        let mut orders = Orders::of(machine.into());
        let request = Request {
            method: "PUT".into(),
            path: "/snapshot/create".into(),
            body: vec![b'x'; 100_000],
        };
        let order = encode(7, &request);
        let given = tempfile::tempfile().unwrap();
        given.set_len(11).unwrap();
        fdpass::send(&keeper, &order[..HEAD_LEN], &[given.as_fd()]).unwrap();
        let sent = request.clone();
        let sender = std::thread::spawn(move || {
            io::Write::write_all(&mut &keeper, &order[HEAD_LEN..]).unwrap();
            let mut bytes = [0; HEAD_LEN];
            (&keeper).read_exact(&mut bytes).unwrap();
            let (length, number) = head(bytes);
            let mut answer = vec![0; length];
            (&keeper).read_exact(&mut answer).unwrap();
            (number, decode::<Response>(&answer))
        });
        orders
            .on_event(&mut |request, mut files| {
                assert_eq!(*request, sent);
                assert_eq!(files.next().unwrap().metadata().unwrap().len(), 11);
                assert!(files.next().is_err());
                Response::json(&1)
            })
            .unwrap();
        assert_eq!(sender.join().unwrap(), (7, Some(Response::json(&1))));
        assert!(
            orders.on_event(&mut |_, _| unreachable!()).is_err(),
            "the keeper has gone"
        );
    }

    #[test]
    fn what_is_more_or_less_than_a_value_is_none() {
        let whole = encode(1, &Response::done());
        let value = &whole[HEAD_LEN..];
        assert_eq!(decode::<Response>(value), Some(Response::done()));
        assert_eq!(decode::<Response>(&value[..value.len() - 1]), None);
        assert_eq!(decode::<Response>(&[value, b"x"].concat()), None);
        // A length of a string that is not there.
        assert_eq!(decode::<Begun>(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]), None);
    }
}
