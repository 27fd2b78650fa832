//! One 512-byte header block: fields and numbers.

use super::BLOCK;

/// Which dialect a header is in, told by its magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before POSIX: no prefix, no magic.
    V7,
    /// `ustar\0`: a prefix of 155 bytes.
    Ustar,
    /// `ustar\0` with star's trailer: a prefix of 131 bytes.
    Star,
    /// `ustar  \0`: GNU fields instead of the prefix.
    Gnu,
}

/// A header block with a good checksum.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
}

pub(super) type Problem = String;

impl<'a> Header<'a> {
    /// `None` for an all-zero block.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Option<Self>, Problem> {
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let stated = number(&block[148..156]).map_err(|p| format!("checksum {p}"))?;
        // Some old writers summed signed characters.
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (i, &b) in block.iter().enumerate() {
            let b = if (148..156).contains(&i) { b' ' } else { b };
            unsigned += i64::from(b);
            signed += i64::from(b.cast_signed());
        }
        if stated != unsigned && stated != signed {
            return Err("checksum does not match".to_owned());
        }
        Ok(Some(Self { block }))
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.block[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if &self.block[508..512] == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Ustar
                }
            }
            _ => Dialect::V7,
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.block[156]
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = match self.dialect() {
            Dialect::Ustar => text(&self.block[345..500]),
            Dialect::Star => text(&self.block[345..476]),
            Dialect::Gnu | Dialect::V7 => b"",
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link(&self) -> &'a [u8] {
        text(&self.block[157..257])
    }

    pub(super) fn mode(&self) -> Result<i64, Problem> {
        self.field(100..108, "mode")
    }

    pub(super) fn uid(&self) -> Result<i64, Problem> {
        self.field(108..116, "uid")
    }

    pub(super) fn gid(&self) -> Result<i64, Problem> {
        self.field(116..124, "gid")
    }

    pub(super) fn size(&self) -> Result<u64, Problem> {
        let size = self.field(124..136, "size")?;
        u64::try_from(size).map_err(|_| "size is negative".to_owned())
    }

    pub(super) fn mtime(&self) -> Result<i64, Problem> {
        self.field(136..148, "mtime")
    }

    pub(super) fn device(&self) -> Result<(u32, u32), Problem> {
        let part = |range, name| {
            u32::try_from(self.field(range, name)?).map_err(|_| format!("{name} is out of range"))
        };
        Ok((part(329..337, "device major")?, part(337..345, "device minor")?))
    }

    /// The four extents an old GNU sparse header holds, whether more blocks follow, and the file's real size.
    pub(super) fn gnu_sparse(&self) -> (&'a [u8], bool, Result<u64, Problem>) {
        let real = self
            .field(483..495, "real size")
            .and_then(|n| u64::try_from(n).map_err(|_| "real size is negative".to_owned()));
        (&self.block[386..482], self.block[482] != 0, real)
    }

    fn field(&self, range: std::ops::Range<usize>, name: &str) -> Result<i64, Problem> {
        number(&self.block[range]).map_err(|p| format!("{name} {p}"))
    }
}

/// Up to the first zero byte.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field
        .iter()
        .position(|&b| b == 0)
        .map_or(field, |end| &field[..end])
}

/// A numeric field: octal text, or base 256 when the first bit is set (GNU, star). Empty means 0.
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    let Some(&first) = field.first() else { return Ok(0) };
    if first & 0x80 != 0 {
        // Two's complement; bit 6 of the first byte is the sign.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, &b) in field.iter().enumerate() {
            let b = match (i, negative) {
                (0, false) => b & 0x7f,
                _ => b,
            };
            value = (value << 8) | i128::from(b);
        }
        return i64::try_from(value).map_err(|_| "is out of range");
    }
    let trimmed = field.trim_ascii_start();
    let end = trimmed
        .iter()
        .position(|&b| b == 0 || b == b' ')
        .unwrap_or(trimmed.len());
    let mut value: i64 = 0;
    for &b in &trimmed[..end] {
        if !(b'0'..=b'7').contains(&b) {
            return Err("is not an octal number");
        }
        value = value
            .checked_mul(8)
            .and_then(|v| v.checked_add(i64::from(b - b'0')))
            .ok_or("is out of range")?;
    }
    if trimmed[end..].iter().any(|&b| b != 0 && b != b' ') {
        return Err("has bytes behind its number");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_in_every_notation() {
        for (field, value) in [
            (&b"0000644\0"[..], Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"        ", Ok(0)),
            (b"77777777", Ok(0o77_777_777)),
            (b"\x80\0\0\0\0\0\x01\0", Ok(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Ok(-1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Ok(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", Err("is out of range")),
            (b"0000648\0", Err("is not an octal number")),
            (b"-1\0\0\0\0\0\0", Err("is not an octal number")),
            (b"644\0junk", Err("has bytes behind its number")),
            (b"777777777777777777777777", Err("is out of range")),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    proptest! {
        #[test]
        fn any_block_is_read_or_refused(block in proptest::collection::vec(any::<u8>(), BLOCK), fix: bool) {
            let mut block: [u8; BLOCK] = block.try_into().unwrap();
            if fix {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            if let Ok(Some(h)) = Header::parse(&block) {
                let _ = (h.mode(), h.uid(), h.gid(), h.size(), h.mtime(), h.device(), h.gnu_sparse());
                prop_assert!(h.path().len() <= 256 && h.link().len() <= 100);
            } else {
                prop_assert!(!fix || block.iter().all(|&b| b == 0));
            }
        }
    }
}
