//! Entries of a tar stream, one after another.

use std::io::{self, BufRead};

use super::header::{Dialect, Header, text};
use super::pax::{Pax, SparseForm};
use super::sparse::{self, Extent};
use super::{BLOCK, Time};
use crate::layer::error::{Error, Result, shown};
use crate::layer::limits::Limits;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its data is behind the header.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to `Entry::link`.
    Symlink,
    /// Another name for `Entry::link`.
    HardLink,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Such as `user.mime_type`; at most 255 bytes, no zero byte.
    pub name: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
}

/// An entry's header, all extensions applied. Names are as in the archive: nothing about them is safe yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name. Not empty, no zero byte.
    pub path: Vec<u8>,
    /// Link target, for links.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner, never `u32::MAX`.
    pub uid: u32,
    /// Group, never `u32::MAX`.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Where the stored bytes go, if the file is sparse.
    pub sparse: Option<Vec<Extent>>,
    /// In the order of the archive.
    pub xattrs: Vec<Xattr>,
}

/// Reads entries. After [`Reader::next_entry`] gave a file, its stored bytes are read with [`Reader::data`]; what is left unread is
/// skipped by the following call.
pub struct Reader<'l, R> {
    source: R,
    limits: &'l Limits,
    global: Pax,
    /// Bytes of the stream consumed.
    offset: u64,
    /// Stored bytes of the current entry not yet consumed.
    left: u64,
    /// Zero bytes behind them.
    padding: u64,
    entries: u64,
}

impl<'l, R: BufRead> Reader<'l, R> {
    /// Starts at the first header.
    pub fn new(source: R, limits: &'l Limits) -> Self {
        Self {
            source,
            limits,
            global: Pax::default(),
            offset: 0,
            left: 0,
            padding: 0,
            entries: 0,
        }
    }

    /// The next entry; `None` at the end of the archive.
    ///
    /// # Errors
    /// [`Error::Header`], [`Error::Limit`], [`Error::Stream`]. The reader is of no use afterwards.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        let mut pax: Option<Pax> = None;
        let mut gnu_path: Option<Vec<u8>> = None;
        let mut gnu_link: Option<Vec<u8>> = None;
        loop {
            let at = self.offset;
            let wrong = |problem: String| Error::Header { offset: at, problem };
            let mut block = [0u8; BLOCK];
            let extended = pax.is_some() || gnu_path.is_some() || gnu_link.is_some();
            if !self.block(&mut block)? {
                if extended {
                    return Err(wrong("archive ends behind an extended header".to_owned()));
                }
                return Ok(None);
            }
            let Some(header) = Header::parse(&block).map_err(wrong)? else {
                if extended {
                    return Err(wrong("archive ends behind an extended header".to_owned()));
                }
                self.end()?;
                return Ok(None);
            };
            let size = header.size().map_err(wrong)?;
            // Extension headers are sized by their own field, whatever a PAX record before them says.
            match header.type_flag() {
                b'x' | b'X' => {
                    let records = self.extension(size, self.limits.pax_bytes, "PAX header")?;
                    if pax.is_some() {
                        return Err(wrong("two PAX headers for one entry".to_owned()));
                    }
                    let mut local = self.global.clone();
                    local
                        .read_local(&records, self.limits.xattr_bytes)
                        .map_err(wrong)?;
                    pax = Some(local);
                }
                b'g' => {
                    let records = self.extension(size, self.limits.pax_bytes, "PAX header")?;
                    if extended {
                        return Err(wrong(
                            "a global header between an entry and its extended header".to_owned(),
                        ));
                    }
                    self.global.read_global(&records).map_err(wrong)?;
                }
                flag @ (b'L' | b'K') => {
                    let name = self.extension(size, self.limits.path_bytes + 1, "GNU long name")?;
                    let slot = if flag == b'L' {
                        &mut gnu_path
                    } else {
                        &mut gnu_link
                    };
                    if slot.is_some() {
                        return Err(wrong("two GNU long names for one entry".to_owned()));
                    }
                    *slot = Some(text(&name).to_vec());
                }
                _ => {
                    self.count(&header)?;
                    let pax = pax.unwrap_or_else(|| self.global.clone());
                    return self.entry(at, &header, size, pax, gnu_path, gnu_link).map(Some);
                }
            }
        }
    }

    /// The next stored bytes of the current file, as many as are at hand; empty at the end of the file. [`Reader::used`] must
    /// follow.
    ///
    /// # Errors
    /// [`Error::Stream`], also when the archive ends first.
    pub fn data(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let chunk = self.source.fill_buf().map_err(stream)?;
        if chunk.is_empty() {
            return Err(truncated(offset));
        }
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(chunk.len());
        Ok(&chunk[..take])
    }

    /// Consumes `count` of the bytes that [`Reader::data`] just gave.
    pub fn used(&mut self, count: usize) {
        self.source.consume(count);
        self.offset += count as u64;
        self.left -= count as u64;
    }

    /// How many entries were read.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn entry(
        &mut self,
        at: u64,
        header: &Header<'_>,
        size: u64,
        pax: Pax,
        gnu_path: Option<Vec<u8>>,
        gnu_link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let wrong = |problem: String| Error::Header { offset: at, problem };
        if (gnu_path.is_some() && (pax.path.is_some() || pax.sparse.name.is_some()))
            || (gnu_link.is_some() && pax.link.is_some())
        {
            return Err(wrong("a name is given by PAX and by GNU headers".to_owned()));
        }
        let mut path = pax
            .sparse
            .name
            .clone()
            .or(pax.path)
            .or(gnu_path)
            .unwrap_or_else(|| header.path());
        let link = pax.link.or(gnu_link).unwrap_or_else(|| header.link().to_vec());
        for (name, what) in [(&path, "name"), (&link, "link target")] {
            if name.len() as u64 > self.limits.path_bytes {
                return Err(Error::Limit {
                    entry: shown(name),
                    what,
                    limit: self.limits.path_bytes,
                });
            }
        }
        if path.is_empty() {
            return Err(wrong("entry has no name".to_owned()));
        }
        // A PAX size replaces the field everywhere: for the data and for where the next header is (CVE-2025-62518).
        let stored = pax.size.unwrap_or(size);
        let bad = |problem: &str| Error::Entry {
            entry: shown(&path),
            problem: problem.to_owned(),
        };
        let flag = header.type_flag();
        let device = || header.device().map_err(|p| bad(&p));
        let kind = match flag {
            0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(bad(&format!(
                    "entry type {:?} is not supported",
                    char::from(other)
                )));
            }
        };
        if kind != Kind::File && stored != 0 {
            // Some readers skip such data, others take it for the next header.
            return Err(bad("an entry of this type has no data, but its size is not 0"));
        }
        if matches!(kind, Kind::HardLink | Kind::Symlink) && link.is_empty() {
            return Err(bad("link has no target"));
        }
        let id = |pax: Option<u64>, field: std::result::Result<i64, String>, what: &str| {
            let id = match pax {
                Some(id) => Some(id),
                None => u64::try_from(field.map_err(|p| bad(&p))?).ok(),
            };
            // u32::MAX is chown(2)'s "leave it".
            id.and_then(|id| u32::try_from(id).ok())
                .filter(|&id| id != u32::MAX)
                .ok_or_else(|| bad(&format!("{what} is out of range")))
        };
        let uid = id(pax.uid, header.uid(), "uid")?;
        let gid = id(pax.gid, header.gid(), "gid")?;
        let mode = header.mode().map_err(|p| bad(&p))?;
        let mode = u32::try_from(mode & 0o7777).unwrap_or(0);
        let mtime = match pax.mtime {
            Some(time) => time,
            None => Time {
                secs: header.mtime().map_err(|p| bad(&p))?,
                nanos: 0,
            },
        };
        let form = pax.sparse.form(self.limits.sparse_extents).map_err(|p| bad(&p))?;
        let is_sparse = !matches!(form, SparseForm::No) || flag == b'S';
        if is_sparse && kind != Kind::File {
            return Err(bad("only a file can be sparse"));
        }
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        let (size, sparse) = match (form, flag) {
            (SparseForm::No, b'S') => {
                if header.dialect() != Dialect::Gnu {
                    return Err(bad("GNU sparse entry without a GNU header"));
                }
                let (pairs, more, real) = header.gnu_sparse();
                let mut map = Vec::new();
                sparse::gnu_pairs(pairs, &mut map).map_err(|p| bad(&p))?;
                self.gnu_sparse_blocks(&path, more, &mut map)?;
                (real.map_err(|p| bad(&p))?, Some(map))
            }
            (SparseForm::No, _) => (stored, None),
            (_, b'S') => return Err(bad("sparse map is given twice")),
            (SparseForm::Here(map), _) => (pax.sparse.real_size.unwrap_or(0), Some(map)),
            (SparseForm::InData, _) => (pax.sparse.real_size.unwrap_or(0), Some(self.sparse_1_0(&path)?)),
        };
        if let Some(map) = &sparse {
            let bad = |problem: String| Error::Entry {
                entry: shown(&path),
                problem,
            };
            sparse::check(map, size, self.left).map_err(bad)?;
            if size > self.limits.sparse_file_bytes {
                let limit = self.limits.sparse_file_bytes;
                return Err(Error::Limit {
                    entry: shown(&path),
                    what: "sparse file size",
                    limit,
                });
            }
        }
        if kind == Kind::Directory {
            while path.len() > 1 && path.ends_with(b"/") {
                path.pop();
            }
        }
        Ok(Entry {
            path,
            link,
            kind,
            mode,
            uid,
            gid,
            mtime,
            size,
            sparse,
            xattrs: pax.xattrs,
        })
    }

    fn gnu_sparse_blocks(&mut self, path: &[u8], mut more: bool, map: &mut Vec<Extent>) -> Result<()> {
        while more {
            let mut block = [0u8; BLOCK];
            if !self.block(&mut block)? {
                return Err(truncated(self.offset));
            }
            sparse::gnu_pairs(&block[..504], map).map_err(|problem| Error::Entry {
                entry: shown(path),
                problem,
            })?;
            self.check_extents(path, map.len() as u64)?;
            more = block[504] != 0;
        }
        Ok(())
    }

    /// The map of format 1.0 stands before the data: decimal numbers, one a line, padded to a block.
    fn sparse_1_0(&mut self, path: &[u8]) -> Result<Vec<Extent>> {
        let bad = |problem: &str| Error::Entry {
            entry: shown(path),
            problem: problem.to_owned(),
        };
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted: Option<u64> = None;
        let mut current: Option<u64> = None;
        loop {
            if self.left < BLOCK as u64 {
                return Err(bad("sparse map does not end within the data"));
            }
            let mut block = [0u8; BLOCK];
            if !self.block(&mut block)? {
                return Err(truncated(self.offset));
            }
            self.left -= BLOCK as u64;
            for &b in &block {
                match b {
                    b'0'..=b'9' => {
                        let digit = u64::from(b - b'0');
                        let next = current
                            .unwrap_or(0)
                            .checked_mul(10)
                            .and_then(|n| n.checked_add(digit));
                        current = Some(next.ok_or_else(|| bad("sparse map number is out of range"))?);
                    }
                    b'\n' => {
                        let number = current
                            .take()
                            .ok_or_else(|| bad("sparse map holds an empty line"))?;
                        match wanted {
                            None => {
                                self.check_extents(path, number)?;
                                wanted = Some(number * 2);
                            }
                            Some(_) => numbers.push(number),
                        }
                        if wanted == Some(numbers.len() as u64) {
                            return sparse::pairs(&numbers).map_err(|p| bad(&p));
                        }
                    }
                    _ => return Err(bad("sparse map holds something other than numbers")),
                }
            }
        }
    }

    fn check_extents(&self, path: &[u8], count: u64) -> Result<()> {
        let limit = self.limits.sparse_extents;
        if count > limit {
            return Err(Error::Limit {
                entry: shown(path),
                what: "sparse extents",
                limit,
            });
        }
        Ok(())
    }

    fn count(&mut self, header: &Header<'_>) -> Result<()> {
        self.entries += 1;
        let limit = self.limits.entries;
        if self.entries > limit {
            return Err(Error::Limit {
                entry: shown(&header.path()),
                what: "number of entries",
                limit,
            });
        }
        Ok(())
    }

    /// The body of an extension header, at most `limit` bytes.
    fn extension(&mut self, size: u64, limit: u64, what: &'static str) -> Result<Vec<u8>> {
        if size > limit {
            return Err(Error::Limit {
                entry: format!("at byte {}", self.offset - BLOCK as u64),
                what,
                limit,
            });
        }
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let mut body = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        loop {
            let chunk = self.data()?;
            if chunk.is_empty() {
                break;
            }
            let count = chunk.len();
            body.extend_from_slice(chunk);
            self.used(count);
        }
        self.skip_rest()?;
        Ok(body)
    }

    fn skip_rest(&mut self) -> Result<()> {
        let mut rest = self
            .left
            .checked_add(self.padding)
            .ok_or_else(|| truncated(self.offset))?;
        while rest > 0 {
            let chunk = self.source.fill_buf().map_err(stream)?;
            if chunk.is_empty() {
                // umoci-insert(1) ends a layer right behind the last byte of data; only zeros that nobody reads are missing.
                if rest <= self.padding {
                    break;
                }
                return Err(truncated(self.offset));
            }
            let take = usize::try_from(rest).unwrap_or(usize::MAX).min(chunk.len());
            self.source.consume(take);
            self.offset += take as u64;
            rest -= take as u64;
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads a block; `false` when the stream ends right before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut have = 0;
        while have < BLOCK {
            let chunk = self.source.fill_buf().map_err(stream)?;
            if chunk.is_empty() {
                if have == 0 {
                    return Ok(false);
                }
                return Err(truncated(self.offset));
            }
            let take = chunk.len().min(BLOCK - have);
            block[have..have + take].copy_from_slice(&chunk[..take]);
            self.source.consume(take);
            self.offset += take as u64;
            have += take;
        }
        Ok(true)
    }

    /// After a zero block: another, or the end of the stream. What follows belongs to nobody.
    fn end(&mut self) -> Result<()> {
        let at = self.offset;
        let mut block = [0u8; BLOCK];
        if self.block(&mut block)? && block.iter().any(|&b| b != 0) {
            return Err(Error::Header {
                offset: at,
                problem: "a lone zero block between entries".to_owned(),
            });
        }
        Ok(())
    }
}

fn stream(source: io::Error) -> Error {
    Error::Stream {
        format: "tar",
        source,
    }
}

fn truncated(offset: u64) -> Error {
    stream(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("ends within an entry, at byte {offset}"),
    ))
}
