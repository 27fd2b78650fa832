//! What a kernel module says of itself: the section `.modinfo` of an ELF file, texts `key=value` that end in zero bytes.

/// Of a module's texts, those that matter for loading it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ModInfo {
    /// Modules whose symbols it uses, `depends=`.
    pub(super) depends: Vec<String>,
    /// Modules that should be there first, though nothing links to them: `softdep=pre: …`.
    pub(super) before: Vec<String>,
    /// The kernel it was built for.
    pub(super) release: String,
}

/// Reads a module; `Err` says what is wrong with it.
pub(super) fn parse(module: &[u8]) -> Result<ModInfo, &'static str> {
    let section = section(module, b".modinfo").ok_or("it has no section .modinfo")?;
    let mut info = ModInfo::default();
    for text in section.split(|&b| b == 0) {
        let text = String::from_utf8_lossy(text);
        match text.split_once('=') {
            Some(("depends", names)) => info.depends.extend(names.split(',').filter_map(name)),
            Some(("softdep", words)) => {
                let words = words
                    .split_whitespace()
                    .skip_while(|word| *word != "pre:")
                    .skip(1);
                info.before
                    .extend(words.take_while(|word| *word != "post:").filter_map(name));
            }
            Some(("vermagic", words)) => {
                info.release = words.split(' ').next().unwrap_or_default().to_owned();
            }
            _ => {}
        }
    }
    Ok(info)
}

/// Module names are written with either sign.
pub(super) fn name(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.replace('-', "_"))
}

/// The bytes of a section of a 64-bit little-endian ELF file. `None` for whatever is none.
fn section<'m>(module: &'m [u8], wanted: &[u8]) -> Option<&'m [u8]> {
    const HEADER: usize = 64;
    if module.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let headers = number(module, 0x28, 8)?;
    let (count, names) = (number(module, 0x3c, 2)?, number(module, 0x3e, 2)?);
    let header = |index: usize| {
        let at = headers.checked_add(index.checked_mul(HEADER)?)?;
        module.get(at..at.checked_add(HEADER)?)
    };
    let content = |header: &[u8]| {
        let (at, len) = (number(header, 0x18, 8)?, number(header, 0x20, 8)?);
        module.get(at..at.checked_add(len)?)
    };
    let names = content(header(names)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let name = names.get(number(header, 0, 4)?..)?;
        let is_it = name.strip_prefix(wanted)?.first() == Some(&0);
        is_it.then(|| content(header)).flatten()
    })
}

/// A little-endian number of `len` bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let mut wide = [0; 8];
    wide[..len].copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
    usize::try_from(u64::from_le_bytes(wide)).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The smallest module there can be: no code, a `.modinfo` of these texts.
    pub(in crate::kernel) fn module(texts: &[&str]) -> Vec<u8> {
        let info: Vec<u8> = texts
            .iter()
            .flat_map(|text| [text.as_bytes(), b"\0"].concat())
            .collect();
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes.extend_from_slice(&info);
        let names_at = bytes.len();
        bytes.extend_from_slice(names);
        let headers_at = bytes.len();
        bytes.extend_from_slice(&[0; 64]);
        for (name, at, len) in [(1u32, 64, info.len()), (10, names_at, names.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
            bytes.extend_from_slice(&header);
        }
        bytes[0x28..0x30].copy_from_slice(&(headers_at as u64).to_le_bytes());
        bytes[0x3c..0x3e].copy_from_slice(&3u16.to_le_bytes());
        bytes[0x3e..0x40].copy_from_slice(&2u16.to_le_bytes());
        bytes
    }

    #[test]
    fn texts_are_read_by_their_keys() {
        let info = parse(&module(&[
            "license=GPL",
            "depends=virtio,net-failover",
            "softdep=pre: crc32c a-b post: other",
            "vermagic=6.1.0-9-amd64 SMP preempt",
            "alias=depends=nothing",
        ]))
        .unwrap();
        assert_eq!(info.depends, ["virtio", "net_failover"]);
        assert_eq!(info.before, ["crc32c", "a_b"]);
        assert_eq!(info.release, "6.1.0-9-amd64");
        assert_eq!(parse(&module(&["depends="])).unwrap(), ModInfo::default());
    }

    proptest! {
        #[test]
        fn broken_files_are_refused_or_read_but_never_crash(
            at in 0usize..400, byte in any::<u8>(), cut in 0usize..400
        ) {
            let mut bytes = module(&["depends=a", "vermagic=6.1 x"]);
            let len = bytes.len();
            bytes[at % len] = byte;
            bytes.truncate(cut.max(1).min(len));
            let _ = parse(&bytes);
        }
    }
}
