//! The header of every packet between guest and host (virtio 1.2 §5.10.6).

/// Length of a header, in bytes.
pub(super) const HEADER_LEN: usize = 44;
/// The most data in one packet; what Linux' driver gives a buffer.
pub(super) const DATA_MAX: usize = 64 * 1024;
/// Stream sockets, the one kind there is here.
pub(super) const STREAM: u16 = 1;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Opens a connection.
    Request,
    /// Accepts it.
    Response,
    /// There is no such connection, or no longer.
    Reset,
    /// The sender sends or receives no more.
    Shutdown,
    /// Data.
    Data,
    /// Nothing but the credit in each header.
    CreditUpdate,
    /// Asks for that.
    CreditRequest,
}

/// [`Operation::Shutdown`]: the sender receives no more.
pub(super) const NO_RECEIVE: u32 = 1;
/// [`Operation::Shutdown`]: the sender sends no more.
pub(super) const NO_SEND: u32 = 2;

impl Operation {
    const ALL: [(u16, Operation); 7] = [
        (1, Operation::Request),
        (2, Operation::Response),
        (3, Operation::Reset),
        (4, Operation::Shutdown),
        (5, Operation::Data),
        (6, Operation::CreditUpdate),
        (7, Operation::CreditRequest),
    ];

    fn from_number(number: u16) -> Option<Operation> {
        let found = Self::ALL.iter().find(|(n, _)| *n == number)?;
        Some(found.1)
    }

    fn number(self) -> u16 {
        let found = Self::ALL.iter().find(|(_, operation)| *operation == self);
        found.expect("all are there").0
    }
}

/// A header. Unknown operations are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source_cid: u64,
    pub(super) destination_cid: u64,
    pub(super) source_port: u32,
    pub(super) destination_port: u32,
    /// Bytes of data behind it.
    pub(super) length: u32,
    pub(super) kind: u16,
    pub(super) operation: Option<Operation>,
    pub(super) flags: u32,
    /// How much the sender buffers for this connection.
    pub(super) buffer: u32,
    /// How much of what it ever received left that buffer; wraps.
    pub(super) forwarded: u32,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Header {
        let short = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"));
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Header {
            source_cid: long(0),
            destination_cid: long(8),
            source_port: word(16),
            destination_port: word(20),
            length: word(24),
            kind: short(28),
            operation: Operation::from_number(short(30)),
            flags: word(32),
            buffer: word(36),
            forwarded: word(40),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let operation = self.operation.map_or(0, Operation::number);
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &self.source_cid.to_le_bytes());
        put(8, &self.destination_cid.to_le_bytes());
        put(16, &self.source_port.to_le_bytes());
        put(20, &self.destination_port.to_le_bytes());
        put(24, &self.length.to_le_bytes());
        put(28, &self.kind.to_le_bytes());
        put(30, &operation.to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.buffer.to_le_bytes());
        put(40, &self.forwarded.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were() {
        let header = Header {
            source_cid: 3,
            destination_cid: 2,
            source_port: 1 << 30,
            destination_port: 52,
            length: 4096,
            kind: STREAM,
            operation: Some(Operation::Data),
            flags: NO_SEND,
            buffer: 65536,
            forwarded: u32::MAX,
        };
        assert_eq!(Header::decode(&header.encode()), header);
        let mut bytes = header.encode();
        bytes[30] = 8;
        assert_eq!(Header::decode(&bytes).operation, None);
    }
}
