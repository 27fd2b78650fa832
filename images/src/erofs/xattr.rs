//! Extended attributes behind an inode: `struct erofs_xattr_ibody_header`, then an `erofs_xattr_entry` each.

use crate::layer::diff::Xattrs;
use crate::layer::tar::Xattr;

/// Bytes of the header, all zero: no shared attributes, no filter.
const HEADER: usize = 12;
/// What the inode's 16-bit count reaches.
const BYTES_MAX: usize = HEADER + 4 * 65534;

/// Beginnings of names and the number that stands for each. The two whole names are POSIX ACLs.
const PREFIXES: [(&[u8], u8); 6] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"lustre.", 5),
    (b"security.", 6),
];

/// The bytes behind the inode, none without attributes. Attributes of other kinds (`system.`, `btrfs.`) belong to the
/// filesystem they came from and are left out.
///
/// # Errors
/// What is too large.
pub(super) fn encode(xattrs: &Xattrs) -> Result<Vec<u8>, &'static str> {
    let opaque = xattrs.opaque.then(|| Xattr {
        name: b"trusted.overlay.opaque".to_vec(),
        value: b"y".to_vec(),
    });
    let mut sorted: Vec<&Xattr> = xattrs.kept.iter().chain(&opaque).collect();
    // Filesystems list them in orders of their own.
    sorted.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut bytes = vec![0u8; HEADER];
    for xattr in sorted {
        let Some((prefix, index)) = PREFIXES.iter().find(|(p, _)| xattr.name.starts_with(p)) else {
            continue;
        };
        let name = &xattr.name[prefix.len()..];
        let name_len =
            u8::try_from(name.len()).map_err(|_| "extended attribute with a name over 255 bytes")?;
        let value_len =
            u16::try_from(xattr.value.len()).map_err(|_| "extended attribute over 65535 bytes")?;
        bytes.extend_from_slice(&[name_len, *index]);
        bytes.extend_from_slice(&value_len.to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&xattr.value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    match bytes.len() {
        // A header alone means something else to the kernel: an error.
        HEADER => Ok(Vec::new()),
        len if len > BYTES_MAX => Err("extended attributes over 256 KiB"),
        _ => Ok(bytes),
    }
}

/// How an inode gives the length of what [`encode`] made: 1 for the header and 1 more for every 4 bytes after it.
pub(super) fn count(encoded: &[u8]) -> u16 {
    match encoded.len() {
        0 => 0,
        len => u16::try_from((len - HEADER) / 4 + 1).expect("encode lets no more through"),
    }
}

/// The length that a count stands for.
pub(super) fn bytes(count: u16) -> u64 {
    match count {
        0 => 0,
        _ => HEADER as u64 + 4 * (u64::from(count) - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(list: &[(&str, &[u8])], opaque: bool) -> Xattrs {
        let kept = list
            .iter()
            .map(|(name, value)| Xattr {
                name: name.as_bytes().to_vec(),
                value: value.to_vec(),
            })
            .collect();
        Xattrs { kept, opaque }
    }

    #[test]
    fn none_take_no_bytes() {
        assert_eq!(encode(&xattrs(&[], false)), Ok(Vec::new()));
        assert_eq!(
            encode(&xattrs(&[("btrfs.compression", b"zstd")], false)),
            Ok(Vec::new())
        );
    }

    #[test]
    fn entries_are_sorted_and_aligned() {
        let bytes = encode(&xattrs(
            &[("user.ab", b"12"), ("system.posix_acl_access", b"A")],
            true,
        ))
        .unwrap();
        let mut expected = vec![0u8; 12];
        expected.extend_from_slice(b"\x00\x02\x01\x00A\0\0\0");
        expected.extend_from_slice(b"\x0e\x04\x01\x00overlay.opaquey\0");
        expected.extend_from_slice(b"\x02\x01\x02\x00ab12");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_count_stands_for_a_length() {
        for len in [0, 16, 20, BYTES_MAX] {
            assert_eq!(bytes(count(&vec![0; len])), len as u64);
        }
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused() {
        assert!(encode(&xattrs(&[("user.a", &[0; 65535])], false)).is_ok());
        assert!(encode(&xattrs(&[("user.a", &[0; 65536])], false)).is_err());
        assert!(encode(&xattrs(&[(&format!("user.{}", "n".repeat(256)), b"")], false)).is_err());
        let large: [(&str, &[u8]); 5] = ["a", "b", "c", "d", "e"].map(|name| (name, &[0u8; 60000][..]));
        let named: Vec<_> = large.map(|(name, value)| (format!("user.{name}"), value)).into();
        let list: Vec<_> = named
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        assert!(encode(&xattrs(&list, false)).is_err());
    }
}
