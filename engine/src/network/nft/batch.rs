//! One transaction: the kernel takes all of it or nothing.

use std::io;

use berth_sys::netlink::{Answer, Buffer, Connection, Subsystem};

use super::super::error::{Error, Result};
use super::expr::Rule;

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DEL_ELEMENT: u16 = 14;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// Number of the data type of link names.
const IFNAME: u32 = 41;
/// NFTNL_UDATA_SET_KEYBYTEORDER, four bytes, host order: without it nft(8) prints link names as empty strings, and cannot
/// load what it printed.
const HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

/// Elements in one message; the list's length is 16 bits wide.
const ELEMENTS_MAX: usize = 256;

/// NFPROTO_*
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Family {
    Inet = 1,
    Ipv4 = 2,
    Bridge = 7,
}

/// A table by family and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) struct Table {
    pub(in crate::network) family: Family,
    pub(in crate::network) name: &'static str,
}

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct Hook {
    pub(in crate::network) kind: &'static str,
    pub(in crate::network) number: u32,
    pub(in crate::network) priority: i32,
}

/// A chain; without a hook only jumps lead there.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct Chain {
    pub(in crate::network) name: &'static str,
    pub(in crate::network) hook: Option<Hook>,
}

/// A set or, with `data`, a map. Types are (number for `nft list`, length in bytes), see nftables' datatype list.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct Set {
    pub(in crate::network) name: &'static str,
    pub(in crate::network) key: (u32, u32),
    pub(in crate::network) data: Option<(u32, u32)>,
    pub(in crate::network) interval: bool,
    /// Lengths in bytes of the parts of a concatenation with intervals; empty for all other sets.
    pub(in crate::network) fields: &'static [u32],
}

/// Add or remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Change {
    Add,
    Remove,
}

/// An element: key, data of maps.
pub(in crate::network) type Element = (Vec<u8>, Option<Vec<u8>>);

/// Messages of one transaction.
#[derive(Debug, Default)]
pub(in crate::network) struct Batch {
    buffer: Buffer,
    /// Where each message starts, to number and flag them when sent.
    starts: Vec<usize>,
    sets: u32,
}

impl Batch {
    pub(in crate::network) fn new() -> Self {
        let mut batch = Self::default();
        batch.message(BATCH_BEGIN, 0, 0, SUBSYSTEM >> 8, |_| {});
        batch
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, fill: impl FnOnce(&mut Buffer)) {
        let at = self.buffer.bytes.len();
        self.starts.push(at);
        let bytes = &mut self.buffer.bytes;
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[family, 0]);
        bytes.extend_from_slice(&resource.to_be_bytes());
        fill(&mut self.buffer);
        let length = u32::try_from(self.buffer.bytes.len() - at).unwrap_or(u32::MAX);
        self.buffer.bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn nft(&mut self, kind: u16, flags: u16, family: Family, fill: impl FnOnce(&mut Buffer)) {
        self.message(SUBSYSTEM | kind, flags, family as u8, 0, fill);
    }

    pub(in crate::network) fn table(&mut self, table: Table) {
        self.nft(NEW_TABLE, CREATE, table.family, |b| b.text(1, table.name));
    }

    pub(in crate::network) fn remove_table(&mut self, table: Table) {
        self.nft(DEL_TABLE, 0, table.family, |b| b.text(1, table.name));
    }

    pub(in crate::network) fn chain(&mut self, table: Table, chain: Chain) {
        self.nft(NEW_CHAIN, CREATE, table.family, |b| {
            b.text(1, table.name);
            b.text(3, chain.name);
            if let Some(hook) = chain.hook {
                b.nest(4, |b| {
                    b.u32(1, hook.number);
                    b.put(2, &hook.priority.to_be_bytes());
                });
                b.u32(5, 1);
                b.text(7, hook.kind);
            }
        });
    }

    pub(in crate::network) fn set(&mut self, table: Table, set: Set) {
        self.sets += 1;
        let id = self.sets;
        self.nft(NEW_SET, CREATE, table.family, |b| {
            b.text(1, table.name);
            b.text(2, set.name);
            let interval = if set.interval { 4 } else { 0 };
            let map = if set.data.is_some() { 8 } else { 0 };
            let concat = if set.fields.is_empty() { 0 } else { 0x80 };
            b.u32(3, interval | map | concat);
            b.u32(4, set.key.0);
            b.u32(5, set.key.1);
            if let Some((kind, length)) = set.data {
                b.u32(6, kind);
                b.u32(7, length);
            }
            if !set.fields.is_empty() {
                b.nest(9, |b| {
                    b.nest(2, |b| {
                        for length in set.fields {
                            b.nest(1, |b| b.u32(1, *length));
                        }
                    });
                });
            }
            b.u32(10, id);
            if set.key.0 == IFNAME {
                b.put(13, &HOST_ORDER);
            }
        });
    }

    pub(in crate::network) fn rule(&mut self, table: Table, chain: &str, fill: impl FnOnce(&mut Rule<'_>)) {
        self.nft(NEW_RULE, CREATE | APPEND, table.family, |b| {
            b.text(1, table.name);
            b.text(2, chain);
            b.nest(4, |buffer| fill(&mut Rule { buffer }));
        });
    }

    pub(in crate::network) fn elements(
        &mut self,
        change: Change,
        table: Table,
        set: &str,
        elements: &[Element],
    ) {
        for chunk in elements.chunks(ELEMENTS_MAX) {
            self.element_list(change, table, set, |b| {
                for (key, data) in chunk {
                    b.nest(1, |b| {
                        b.nest(1, |b| b.put(1, key));
                        if let (Some(data), Change::Add) = (data, change) {
                            b.nest(2, |b| b.put(1, data));
                        }
                    });
                }
            });
        }
    }

    /// A range of keys, from the first to before the last.
    pub(in crate::network) fn interval(
        &mut self,
        change: Change,
        table: Table,
        set: &str,
        from: &[u8],
        end: &[u8],
    ) {
        self.element_list(change, table, set, |b| {
            b.nest(1, |b| b.nest(1, |b| b.put(1, from)));
            b.nest(1, |b| {
                b.nest(1, |b| b.put(1, end));
                b.u32(3, 1);
            });
        });
    }

    /// A range of concatenated keys, each part from its first to its last.
    pub(in crate::network) fn range(
        &mut self,
        change: Change,
        table: Table,
        set: &str,
        first: &[u8],
        last: &[u8],
    ) {
        self.element_list(change, table, set, |b| {
            b.nest(1, |b| {
                b.nest(1, |b| b.put(1, first));
                b.nest(10, |b| b.put(1, last));
            });
        });
    }

    fn element_list(&mut self, change: Change, table: Table, set: &str, fill: impl FnOnce(&mut Buffer)) {
        let (kind, flags) = match change {
            Change::Add => (NEW_ELEMENT, CREATE),
            Change::Remove => (DEL_ELEMENT, 0),
        };
        self.nft(kind, flags, table.family, |b| {
            b.text(1, table.name);
            b.text(2, set);
            b.nest(3, fill);
        });
    }

    /// Has it anything to do?
    pub(in crate::network) fn is_empty(&self) -> bool {
        self.starts.len() == 1
    }
}

/// An nfnetlink connection to one network namespace.
#[derive(Debug)]
pub(in crate::network) struct Nft {
    pub(super) connection: Connection,
}

impl Nft {
    /// Connects to the calling thread's network namespace.
    pub(in crate::network) fn open() -> Result<Self> {
        Connection::open(Subsystem::Netfilter)
            .map(|connection| Self { connection })
            .map_err(|source| Error::Nft {
                operation: "open nfnetlink",
                source,
            })
    }

    /// Is the table there?
    pub(in crate::network) fn has_table(&mut self, table: Table) -> Result<bool> {
        let mut batch = Batch::default();
        batch.nft(GET_TABLE, ACK, table.family, |b| b.text(1, table.name));
        let sequence = self.connection.next_sequence();
        batch.buffer.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        let mut errno = 0;
        self.connection
            .exchange(&batch.buffer.bytes, |answer| match answer {
                Answer::Ack {
                    sequence: number,
                    errno: code,
                } => {
                    errno = code;
                    number == sequence
                }
                Answer::Message { .. } => false,
            })
            .map_err(|source| Error::Nft {
                operation: "look for a table",
                source,
            })?;
        match errno {
            0 => Ok(true),
            libc::ENOENT => Ok(false),
            code => Err(Error::Nft {
                operation: "look for a table",
                source: io::Error::from_raw_os_error(code),
            }),
        }
    }

    /// Commits a transaction. `operation` names it in the error.
    pub(in crate::network) fn commit(&mut self, mut batch: Batch, operation: &'static str) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.starts.last().copied().unwrap_or_default();
        // The kernel answers each message it refuses; of those it takes only the marked one, and of 6.10 and later alone
        // would it answer the end.
        let flags =
            REQUEST | ACK | u16::from_ne_bytes([batch.buffer.bytes[last + 6], batch.buffer.bytes[last + 7]]);
        batch.buffer.bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        let awaited = batch.starts.len();
        batch.message(BATCH_END, 0, 0, SUBSYSTEM >> 8, |_| {});
        let mut first = 0;
        let mut final_sequence = 0;
        for (index, start) in batch.starts.iter().enumerate() {
            let sequence = self.connection.next_sequence();
            if index == 0 {
                first = sequence;
            }
            if index + 1 == awaited {
                final_sequence = sequence;
            }
            batch.buffer.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        let mut errno = 0;
        self.connection
            .exchange(&batch.buffer.bytes, |answer| match answer {
                Answer::Ack {
                    sequence,
                    errno: code,
                } => {
                    if errno == 0 && sequence.wrapping_sub(first) <= final_sequence.wrapping_sub(first) {
                        errno = code;
                    }
                    // An answer to the first message is about the whole: no permission, no such subsystem.
                    sequence == final_sequence || (sequence == first && code != 0)
                }
                Answer::Message { .. } => false,
            })
            .map_err(|source| Error::Nft { operation, source })?;
        match errno {
            0 => Ok(()),
            code => Err(Error::Nft {
                operation,
                source: io::Error::from_raw_os_error(code),
            }),
        }
    }
}
