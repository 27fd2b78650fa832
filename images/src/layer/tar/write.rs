//! Writing tar: ustar, with PAX records only where ustar does not reach.

use std::io::{self, Write};

use super::reader::{Kind, Xattr};
use super::{BLOCK, Time};

/// An entry to be written.
#[derive(Debug, Clone)]
pub struct NewEntry<'a> {
    /// Name; a closing slash is added to directories.
    pub path: &'a [u8],
    /// Link target, for links.
    pub link: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Bytes of data that follow, for a file.
    pub size: u64,
    /// Written sorted by name.
    pub xattrs: &'a [Xattr],
}

/// Writes entries one after another. After the header of a file exactly `size` bytes of data must be written.
pub struct Writer<W> {
    out: W,
    written: u64,
}

const ZEROS: [u8; BLOCK * 2] = [0; BLOCK * 2];
const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, written: 0 }
    }

    /// Writes the header, extended if need be.
    ///
    /// # Errors
    /// What `out` says.
    pub fn header(&mut self, entry: &NewEntry<'_>) -> io::Result<()> {
        let mut path = entry.path.to_vec();
        if entry.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut records = Vec::new();
        let split = split(&path);
        if split.is_none() {
            record(&mut records, b"path", &path);
        }
        if entry.link.len() > 100 {
            record(&mut records, b"linkpath", entry.link);
        }
        if u64::from(entry.uid) > OCTAL_7 {
            record(&mut records, b"uid", entry.uid.to_string().as_bytes());
        }
        if u64::from(entry.gid) > OCTAL_7 {
            record(&mut records, b"gid", entry.gid.to_string().as_bytes());
        }
        if entry.size > OCTAL_11 {
            record(&mut records, b"size", entry.size.to_string().as_bytes());
        }
        let secs = u64::try_from(entry.mtime.secs)
            .ok()
            .filter(|&secs| secs <= OCTAL_11);
        if secs.is_none() || entry.mtime.nanos != 0 {
            record(&mut records, b"mtime", pax_time(entry.mtime).as_bytes());
        }
        let mut xattrs: Vec<&Xattr> = entry.xattrs.iter().collect();
        xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        for xattr in xattrs {
            record(
                &mut records,
                &[b"SCHILY.xattr.", &*xattr.name].concat(),
                &xattr.value,
            );
        }
        if !records.is_empty() {
            let base = path.strip_suffix(b"/").unwrap_or(&path);
            let base = base.rsplit(|&b| b == b'/').next().unwrap_or_default();
            let name = [b"PaxHeaders/", &base[..base.len().min(80)]].concat();
            let fields = Fields {
                type_flag: b'x',
                mode: 0o644,
                size: records.len() as u64,
                ..Fields::default()
            };
            self.block(&name, b"", b"", &fields)?;
            self.data(&records)?;
            self.pad()?;
        }
        let (prefix, name) = split.unwrap_or((b"", &path[..path.len().min(100)]));
        let (type_flag, device) = match entry.kind {
            Kind::File => (b'0', (0, 0)),
            Kind::HardLink => (b'1', (0, 0)),
            Kind::Symlink => (b'2', (0, 0)),
            Kind::CharDevice { major, minor } => (b'3', (major, minor)),
            Kind::BlockDevice { major, minor } => (b'4', (major, minor)),
            Kind::Directory => (b'5', (0, 0)),
            Kind::Fifo => (b'6', (0, 0)),
        };
        let fields = Fields {
            type_flag,
            mode: entry.mode & 0o7777,
            uid: u64::from(entry.uid),
            gid: u64::from(entry.gid),
            size: entry.size,
            mtime: secs.unwrap_or(0),
            device,
        };
        self.block(prefix, name, &entry.link[..entry.link.len().min(100)], &fields)
            .map(|_| ())
    }

    /// Writes data of the current file.
    ///
    /// # Errors
    /// What `out` says.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Fills up to a block after the data.
    ///
    /// # Errors
    /// What `out` says.
    pub fn pad(&mut self) -> io::Result<()> {
        let rest = usize::try_from(self.written.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        self.data(&ZEROS[..rest])
    }

    /// Writes the end of the archive. Returns the bytes written in all.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<u64> {
        self.data(&ZEROS)?;
        self.out.flush()?;
        Ok(self.written)
    }

    fn block(&mut self, prefix: &[u8], name: &[u8], link: &[u8], fields: &Fields) -> io::Result<()> {
        // An extension header is named by its prefix argument alone.
        let (prefix, name) = if name.is_empty() {
            (&b""[..], prefix)
        } else {
            (prefix, name)
        };
        let mut block = [0u8; BLOCK];
        block[..name.len()].copy_from_slice(name);
        octal(&mut block[100..108], u64::from(fields.mode));
        octal(
            &mut block[108..116],
            if fields.uid > OCTAL_7 { 0 } else { fields.uid },
        );
        octal(
            &mut block[116..124],
            if fields.gid > OCTAL_7 { 0 } else { fields.gid },
        );
        octal(
            &mut block[124..136],
            if fields.size > OCTAL_11 { 0 } else { fields.size },
        );
        octal(&mut block[136..148], fields.mtime);
        block[148..156].fill(b' ');
        block[156] = fields.type_flag;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(fields.device.0));
        octal(&mut block[337..345], u64::from(fields.device.1));
        block[345..345 + prefix.len()].copy_from_slice(prefix);
        let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
        octal(&mut block[148..155], sum);
        self.data(&block)
    }
}

#[derive(Default)]
struct Fields {
    type_flag: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    device: (u32, u32),
}

/// Digits, and a zero byte at the end of the field.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    field[..width].copy_from_slice(&digits.as_bytes()[digits.len() - width..]);
    field[width] = 0;
}

/// Prefix and name of the ustar fields, if the path fits them.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The name part must not be empty: the closing slash of a directory is no place to split.
    let slash = path[..path.len() - 1]
        .iter()
        .enumerate()
        .position(|(i, &b)| b == b'/' && path.len() - i - 1 <= 100)?;
    (slash > 0 && slash <= 155).then(|| (&path[..slash], &path[slash + 1..]))
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn pax_time(time: Time) -> String {
    if time.nanos == 0 {
        return time.secs.to_string();
    }
    let (sign, secs, nanos) = if time.secs < 0 {
        ("-", (time.secs + 1).unsigned_abs(), 1_000_000_000 - time.nanos)
    } else {
        ("", time.secs.unsigned_abs(), time.nanos)
    };
    format!("{sign}{secs}.{nanos:09}")
        .trim_end_matches('0')
        .to_owned()
}
