//! The host's end of a conversation. Blocks; how the connection came about (through a monitor's Unix socket and its
//! `CONNECT`, say) is the caller's.

use std::io::{Read, Write};

use crate::frame;
use crate::protocol::{Ended, Failure, ProcessId, Reply, Request, Stream};

/// Why a request got no answer of use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest refused or failed.
    #[error("{}", text(.0))]
    Refused(Failure),
    /// The guest answered something else than was asked for.
    #[error("the guest answered out of turn: {0}")]
    OutOfTurn(String),
    /// The guest closed the connection, as it does after a frame it cannot read.
    #[error("the guest closed the connection")]
    Closed,
    /// The connection or what came over it.
    #[error(transparent)]
    Frame(#[from] frame::Error),
}

fn text(failure: &Failure) -> String {
    match failure {
        Failure::Exec { program, errno } => {
            format!("exec {program}: {}", std::io::Error::from_raw_os_error(*errno))
        }
        Failure::Other { why } => why.clone(),
    }
}

/// One conversation over a connected stream.
#[derive(Debug)]
pub struct Client<S> {
    connection: S,
}

impl<S: Read + Write> Client<S> {
    /// Takes a connection over.
    #[must_use]
    pub fn new(connection: S) -> Self {
        Client { connection }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for [`Reply::Failed`]; [`Error::Closed`] and [`Error::Frame`] end the conversation.
    pub fn call(&mut self, request: &Request) -> Result<Reply, Error> {
        frame::send(&mut self.connection, request)?;
        match frame::receive(&mut self.connection)? {
            Some(Reply::Failed(failure)) => Err(Error::Refused(failure)),
            Some(reply) => Ok(reply),
            None => Err(Error::Closed),
        }
    }

    /// Asks for something that is answered by [`Reply::Done`].
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn order(&mut self, request: &Request) -> Result<(), Error> {
        match self.call(request)? {
            Reply::Done => Ok(()),
            other => Err(Error::OutOfTurn(format!("{other:?}"))),
        }
    }

    /// Waits until a process has ended.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn wait(&mut self, process: ProcessId) -> Result<Ended, Error> {
        match self.call(&Request::Wait { process })? {
            Reply::Ended(ended) => Ok(ended),
            other => Err(Error::OutOfTurn(format!("{other:?}"))),
        }
    }

    /// Asks for the end of the guest. That it says nothing more is as good as its word: the power goes off right behind it, and
    /// what was under way with it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::OutOfTurn`].
    pub fn shut_down(&mut self) -> Result<(), Error> {
        match self.order(&Request::Shutdown) {
            Err(Error::Closed | Error::Frame(_)) => Ok(()),
            other => other,
        }
    }

    /// Turns the conversation into a stream.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn attach(mut self, process: ProcessId, stream: Stream) -> Result<S, Error> {
        self.order(&Request::Attach { process, stream })?;
        Ok(self.connection)
    }
}
