//! From a blob's bytes to an unpacked tree: decompress, hash and unpack in one pass.
//!
//! ```text
//! thread 1: reader ─► decoder ─► 256 KiB buffers ═══channel═══► thread 2: hash, parse, write files
//! ```
//!
//! Inflating costs about as much as hashing and writing together, so two threads nearly halve the time. Four buffers are in
//! flight, which bounds memory whatever the layer's size.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::apply::{Applied, apply};
use super::error::{Error, Result};
use super::limits::Limits;
use crate::digest::{Algorithm, Digest, Hasher};

const BUFFER_BYTES: usize = 256 << 10;
const BUFFERS: usize = 4;
/// libzstd's text for `ZSTD_error_frameParameter_windowTooLarge`; its error code does not come through `io::Error`.
const WINDOW_TOO_LARGE: &str = "Frame requires too much memory for decoding";

/// How a layer blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A bare tar.
    None,
    /// One or more gzip members, RFC 1952.
    Gzip,
    /// One or more zstd frames, RFC 8878.
    Zstd,
}

/// What came of a layer stream.
#[derive(Debug)]
pub struct Received {
    /// Digest of the uncompressed bytes, all of them to the end of the stream.
    pub diff_id: Digest,
    /// Uncompressed bytes.
    pub tar_bytes: u64,
    /// What the unpacked tree still needs.
    pub applied: Applied,
}

/// A size bound reached in the stream, on its way through `io::Error`.
#[derive(Debug)]
pub(super) struct Bomb {
    pub(super) what: &'static str,
    pub(super) limit: u64,
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over the limit of {}", self.what, self.limit)
    }
}

impl std::error::Error for Bomb {}

/// Unpacks a layer beneath `root`, an empty directory nobody else writes to. `reader` is read to its end, from a thread of
/// its own that is gone on return; after an error this waits for the `read` call in progress.
///
/// # Errors
/// [`Error`]; `root` then holds part of the layer.
pub fn unpack(
    root: BorrowedFd<'_>,
    compression: Compression,
    reader: impl Read + Send,
    algorithm: Algorithm,
    limits: &Limits,
) -> Result<Received> {
    let (full, filled) = sync_channel(BUFFERS - 1);
    let (give_back, spare) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || expand(compression, reader, limits, &full, &spare));
        let mut source = Source {
            filled,
            give_back,
            buffer: Vec::new(),
            at: 0,
            ended: false,
            hasher: Hasher::new(algorithm),
            total: 0,
        };
        let applied = apply(root, &mut source, limits).map_err(|e| as_format(e, compression, limits))?;
        // The digest covers what follows the end-of-archive blocks too.
        loop {
            let rest = source
                .fill_buf()
                .map_err(|e| stream_error(e, compression, limits))?
                .len();
            if rest == 0 {
                break;
            }
            source.consume(rest);
        }
        Ok(Received {
            diff_id: source.hasher.finish(),
            tar_bytes: source.total,
            applied,
        })
    })
}

/// Decompresses `reader` to its end for reading, multi-member gzip and multi-frame zstd included, within the window limit.
pub(crate) fn decoder<'a>(
    compression: Compression,
    reader: impl Read + Send + 'a,
    limits: &Limits,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let reader = BufReader::with_capacity(64 << 10, reader);
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(limits.zstd_window_log)?;
            Box::new(decoder)
        }
    })
}

type Filled = io::Result<Vec<u8>>;

fn expand(
    compression: Compression,
    reader: impl Read + Send,
    limits: &Limits,
    full: &SyncSender<Filled>,
    spare: &Receiver<Vec<u8>>,
) {
    let taken = AtomicU64::new(0);
    let counted = Counted {
        reader,
        taken: &taken,
    };
    let mut decoder = match decoder(compression, counted, limits) {
        Ok(decoder) => decoder,
        Err(e) => {
            let _ = full.send(Err(e));
            return;
        }
    };
    let mut total = 0u64;
    loop {
        let mut buffer = spare.try_recv().unwrap_or_default();
        buffer.resize(BUFFER_BYTES, 0);
        let (have, result) = fill(&mut decoder, &mut buffer);
        buffer.truncate(have);
        total += have as u64;
        let bomb = check_expansion(total, taken.load(Ordering::Relaxed), limits);
        // A send fails when the other side gave up; then nobody reads an answer.
        if let Some(bomb) = bomb {
            let _ = full.send(Err(io::Error::other(bomb)));
            return;
        }
        if have > 0 && full.send(Ok(buffer)).is_err() {
            return;
        }
        match result {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => {
                let _ = full.send(Err(e));
                return;
            }
        }
    }
}

fn check_expansion(total: u64, taken: u64, limits: &Limits) -> Option<Bomb> {
    if total > limits.expanded_bytes {
        return Some(Bomb {
            what: "uncompressed layer size",
            limit: limits.expanded_bytes,
        });
    }
    if total > limits.ratio_after_bytes && total / taken.max(1) > limits.ratio {
        return Some(Bomb {
            what: "compression ratio",
            limit: limits.ratio,
        });
    }
    None
}

/// Fills `buffer`; whether more may follow.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> (usize, io::Result<bool>) {
    let mut have = 0;
    while have < buffer.len() {
        match reader.read(&mut buffer[have..]) {
            Ok(0) => return (have, Ok(false)),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (have, Err(e)),
        }
    }
    (have, Ok(true))
}

struct Counted<'c, R> {
    reader: R,
    taken: &'c AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The receiving end: hashes each buffer as it comes in.
struct Source {
    filled: Receiver<Filled>,
    give_back: Sender<Vec<u8>>,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
    hasher: Hasher,
    total: u64,
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let n = chunk.len().min(out.len());
        out[..n].copy_from_slice(&chunk[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() && !self.ended {
            let empty = std::mem::take(&mut self.buffer);
            self.at = 0;
            if empty.capacity() > 0 {
                // The other thread has ended when nobody takes it.
                let _ = self.give_back.send(empty);
            }
            match self.filled.recv() {
                Ok(Ok(buffer)) => {
                    self.hasher.update(&buffer);
                    self.total += buffer.len() as u64;
                    self.buffer = buffer;
                }
                Ok(Err(e)) => {
                    self.ended = true;
                    return Err(e);
                }
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

fn as_format(error: Error, compression: Compression, limits: &Limits) -> Error {
    match error {
        Error::Stream { source, .. } => stream_error(source, compression, limits),
        other => other,
    }
}

fn stream_error(source: io::Error, compression: Compression, limits: &Limits) -> Error {
    if let Some(bomb) = source.get_ref().and_then(|e| e.downcast_ref::<Bomb>()) {
        return Error::Limit {
            entry: "behind the last".to_owned(),
            what: bomb.what,
            limit: bomb.limit,
        };
    }
    let format = match compression {
        Compression::None => "tar",
        Compression::Gzip => "tar+gzip",
        Compression::Zstd if source.to_string() == WINDOW_TOO_LARGE => {
            return Error::ZstdWindow {
                limit_mib: 1u64.checked_shl(limits.zstd_window_log).unwrap_or(0) >> 20,
            };
        }
        Compression::Zstd => "tar+zstd",
    };
    Error::Stream { format, source }
}
