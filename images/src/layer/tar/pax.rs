//! PAX extended headers: `LENGTH KEY=VALUE\n` records (POSIX.1-2001, pax Interchange Format).

use super::header::Problem;
use super::sparse::{self, Extent};
use super::{Time, Xattr};

/// What the records before an entry say about it.
#[derive(Debug, Default, Clone)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Sparse,
}

/// The `GNU.sparse.*` records, versions 0.0, 0.1 and 1.0.
#[derive(Debug, Default, Clone)]
pub(super) struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    extents: Option<u64>,
    map: Vec<u64>,
}

/// Which sparse file a set of records describes.
pub(super) enum SparseForm {
    /// Not sparse.
    No,
    /// The map is in the records (0.0, 0.1).
    Here(Vec<Extent>),
    /// The map is before the data (1.0).
    InData,
}

impl Pax {
    /// Adds the records of one `x` header.
    pub(super) fn read_local(&mut self, records: &[u8], xattr_bytes_max: u64) -> Result<(), Problem> {
        let mut xattr_bytes = 0u64;
        each(records, |key, value| {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                if name.is_empty() || name.len() > 255 || name.contains(&0) {
                    return Err("xattr name is empty, too long or holds a zero byte".to_owned());
                }
                xattr_bytes += (name.len() + value.len()) as u64;
                if xattr_bytes > xattr_bytes_max {
                    return Err(format!("xattrs over the limit of {xattr_bytes_max} bytes"));
                }
                self.xattrs.retain(|x| x.name != name);
                self.xattrs.push(Xattr {
                    name: name.to_vec(),
                    value: value.to_vec(),
                });
                return Ok(());
            }
            match key {
                b"path" => self.path = text(key, value)?,
                b"linkpath" => self.link = text(key, value)?,
                b"size" => self.size = decimal(key, value)?,
                b"uid" => self.uid = decimal(key, value)?,
                b"gid" => self.gid = decimal(key, value)?,
                b"mtime" => self.mtime = time(value)?,
                b"GNU.sparse.major" => self.sparse.major = decimal(key, value)?,
                b"GNU.sparse.minor" => self.sparse.minor = decimal(key, value)?,
                b"GNU.sparse.name" => self.sparse.name = text(key, value)?,
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = decimal(key, value)?,
                b"GNU.sparse.numblocks" => self.sparse.extents = decimal(key, value)?,
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    // 0.0 repeats the two keys in turn; anything else is two maps in one.
                    let is_offset = key.ends_with(b"offset");
                    if is_offset != self.sparse.map.len().is_multiple_of(2) {
                        return Err("sparse map records are out of order".to_owned());
                    }
                    self.sparse
                        .map
                        .push(decimal(key, value)?.ok_or("sparse map record is empty")?);
                }
                b"GNU.sparse.map" => {
                    if !self.sparse.map.is_empty() {
                        return Err("sparse map is given twice".to_owned());
                    }
                    for number in value.split(|&b| b == b',').filter(|n| !n.is_empty()) {
                        self.sparse.map.push(decimal(key, number)?.unwrap_or(0));
                    }
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// Adds the records of one `g` header, which hold for all entries after it. A global name or size would let
    /// readers that know global headers and readers that skip them see two archives.
    pub(super) fn read_global(&mut self, records: &[u8]) -> Result<(), Problem> {
        each(records, |key, value| {
            match key {
                b"uid" => self.uid = decimal(key, value)?,
                b"gid" => self.gid = decimal(key, value)?,
                b"mtime" => self.mtime = time(value)?,
                b"path" | b"linkpath" | b"size" => return Err(format!("global header sets {}", lossy(key))),
                _ if key.starts_with(b"GNU.sparse.") || key.starts_with(b"SCHILY.xattr.") => {
                    return Err(format!("global header sets {}", lossy(key)));
                }
                _ => {}
            }
            Ok(())
        })
    }
}

impl Sparse {
    pub(super) fn form(&self, extents_max: u64) -> Result<SparseForm, Problem> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) => {
                if !self.map.is_empty() || self.extents.is_some() {
                    return Err("sparse map is given twice".to_owned());
                }
                if self.real_size.is_none() {
                    return Err("sparse file has no real size".to_owned());
                }
                Ok(SparseForm::InData)
            }
            (None | Some(0), None | Some(0 | 1)) => {
                if self.map.is_empty() && self.extents.is_none_or(|n| n == 0) {
                    // 0.x of a file that is one hole has no map; without a size it is no sparse file.
                    return Ok(if self.real_size.is_some() {
                        SparseForm::Here(Vec::new())
                    } else if self.name.is_some() {
                        return Err("sparse name without a sparse file".to_owned());
                    } else {
                        SparseForm::No
                    });
                }
                let map = sparse::pairs(&self.map)?;
                if self.real_size.is_none() {
                    return Err("sparse file has no real size".to_owned());
                }
                if self.extents.is_some_and(|n| n != map.len() as u64) {
                    return Err("sparse map has another count of extents than announced".to_owned());
                }
                if map.len() as u64 > extents_max {
                    return Err(format!("sparse map over the limit of {extents_max} extents"));
                }
                Ok(SparseForm::Here(map))
            }
            _ => Err("sparse format version is unknown".to_owned()),
        }
    }
}

/// Calls `f` with each key and value.
fn each(mut records: &[u8], mut f: impl FnMut(&[u8], &[u8]) -> Result<(), Problem>) -> Result<(), Problem> {
    let malformed = || "PAX record is malformed".to_owned();
    while !records.is_empty() {
        let space = records
            .iter()
            .take(20)
            .position(|&b| b == b' ')
            .ok_or_else(malformed)?;
        let length = decimal(b"length", &records[..space])?.ok_or_else(malformed)?;
        let length = usize::try_from(length).map_err(|_| malformed())?;
        if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &records[space + 1..length - 1];
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(malformed)?;
        if equals == 0 {
            return Err(malformed());
        }
        f(&record[..equals], &record[equals + 1..])?;
        records = &records[length..];
    }
    Ok(())
}

/// `None` for an empty value, which takes the record back.
fn text(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    if value.contains(&0) {
        return Err(format!("PAX {} holds a zero byte", lossy(key)));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn decimal(key: &[u8], value: &[u8]) -> Result<Option<u64>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    let mut number = 0u64;
    for &b in value {
        if !b.is_ascii_digit() {
            return Err(format!("PAX {} is not a number", lossy(key)));
        }
        number = number
            .checked_mul(10)
            .and_then(|n| n.checked_add(u64::from(b - b'0')))
            .ok_or_else(|| format!("PAX {} is out of range", lossy(key)))?;
    }
    Ok(Some(number))
}

/// Seconds with an optional sign and fraction, cut to nanoseconds towards the past.
fn time(value: &[u8]) -> Result<Option<Time>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = match digits.iter().position(|&b| b == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &b""[..]),
    };
    let secs = decimal(b"mtime", whole)?
        .and_then(|n| i64::try_from(n).ok())
        .ok_or("PAX mtime is out of range")?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("PAX mtime is not a number".to_owned());
    }
    let mut nanos = 0u32;
    for place in 0..9 {
        nanos = nanos * 10 + u32::from(fraction.get(place).map_or(0, |b| b - b'0'));
    }
    Ok(Some(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time {
            secs: -secs,
            nanos: 0,
        },
        (true, _) => Time {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    }))
}

fn lossy(key: &[u8]) -> String {
    String::from_utf8_lossy(&key[..key.len().min(40)])
        .escape_debug()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn local(records: &[u8]) -> Result<Pax, Problem> {
        let mut pax = Pax::default();
        pax.read_local(records, 1024).map(|()| pax)
    }

    #[test]
    fn records_are_read_and_taken_back() {
        let pax = local(b"11 path=a/b\n14 size=123456\n27 SCHILY.xattr.user.a=x\0y=\n").err();
        assert_eq!(
            pax,
            Some("PAX record is malformed".to_owned()),
            "lengths are exact"
        );
        let pax = local(b"12 path=a/b\n15 size=123456\n").unwrap();
        assert_eq!(
            (pax.path.as_deref(), pax.size),
            (Some(&b"a/b"[..]), Some(123_456))
        );
        assert_eq!(local(b"12 path=a/b\n8 path=\n").unwrap().path, None);
    }

    #[test]
    fn times_keep_nanoseconds_and_sign() {
        let t = |s: &str| time(s.as_bytes()).unwrap().unwrap();
        assert_eq!(
            t("1.5"),
            Time {
                secs: 1,
                nanos: 500_000_000
            }
        );
        assert_eq!(
            t("1350244992.0239601099"),
            Time {
                secs: 1_350_244_992,
                nanos: 23_960_109
            }
        );
        assert_eq!(
            t("-1.25"),
            Time {
                secs: -2,
                nanos: 750_000_000
            }
        );
        assert_eq!(t("-7"), Time { secs: -7, nanos: 0 });
        assert!(time(b"1e5").is_err() && time(b".").is_err() && time(b"99999999999999999999").is_err());
    }

    #[test]
    fn a_global_header_cannot_rename_or_resize() {
        assert!(Pax::default().read_global(b"9 uid=12\n").is_ok());
        for records in [
            &b"12 path=a/b\n"[..],
            b"10 size=10\n",
            b"25 GNU.sparse.realsize=1\n",
        ] {
            assert!(
                Pax::default().read_global(records).is_err(),
                "{}",
                String::from_utf8_lossy(records)
            );
        }
    }

    proptest! {
        #[test]
        fn foreign_records_never_panic(records: Vec<u8>) {
            let _ = local(&records);
        }

        #[test]
        fn nearly_good_records_never_panic(key in "[a-zA-Z.]{1,30}", value: Vec<u8>, length in 0usize..80) {
            let mut record = format!("{length} {key}=").into_bytes();
            record.extend(value);
            record.push(b'\n');
            let _ = local(&record);
            let _ = Pax::default().read_global(&record);
        }
    }
}
