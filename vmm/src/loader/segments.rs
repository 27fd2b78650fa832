//! Where the parts of an ELF kernel would lie, before any is put there: in memory, above the monitor's own tables, and none over
//! another (ELF-64 Object File Format, "Program Header").

use super::Error;
use crate::arch::x86_64::layout;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;

/// What a program header says of a segment that is loaded.
struct Segment {
    at: u64,
    /// In memory.
    length: u64,
    /// In the file, from where.
    from: u64,
    bytes: u64,
}

/// Looks at the segments of `image` for a machine with `room` bytes below the hole. What else its headers say is the loader's to
/// check. The first byte behind all of them.
///
/// # Errors
///
/// [`Error::Elf`], [`Error::Segment`] and [`Error::NoRoom`].
pub(super) fn check(image: &[u8], room: u64) -> Result<u64, Error> {
    let mut segments = of(image)?;
    segments.sort_by_key(|segment| segment.at);
    let mut end = layout::HIGH_RAM;
    for segment in &segments {
        let wrong = |why| Err(Error::Segment { at: segment.at, why });
        if segment.at < layout::HIGH_RAM {
            return wrong("lies below 1 MiB, where the monitor's tables are");
        }
        if segment.at < end {
            return wrong("lies over another");
        }
        if segment.bytes > segment.length {
            return wrong("has more bytes in the file than in memory");
        }
        if segment
            .from
            .checked_add(segment.bytes)
            .is_none_or(|end| end > image.len() as u64)
        {
            return wrong("has bytes that are not in the file");
        }
        let Some(next) = segment.at.checked_add(segment.length) else {
            return wrong("goes around the end of all addresses");
        };
        end = next;
    }
    if end > room {
        return Err(Error::NoRoom {
            needed: end,
            there: room,
        });
    }
    Ok(end)
}

fn of(image: &[u8]) -> Result<Vec<Segment>, Error> {
    let short = || Error::Elf("they go beyond the file".into());
    let bytes = |at: usize, length: usize| image.get(at..at.checked_add(length)?);
    let half = |at| bytes(at, 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let word = |at| bytes(at, 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let long = |at: usize| Some(u64::from(word(at)?) | u64::from(word(at + 4)?) << 32);
    bytes(0, HEADER).ok_or_else(short)?;
    let first = long(32)
        .and_then(|at| usize::try_from(at).ok())
        .ok_or_else(short)?;
    let count = half(56).ok_or_else(short)?;
    let mut segments = Vec::new();
    for number in 0..usize::from(count) {
        let at = number
            .checked_mul(PROGRAM_HEADER)
            .and_then(|offset| offset.checked_add(first))
            .ok_or_else(short)?;
        bytes(at, PROGRAM_HEADER).ok_or_else(short)?;
        if word(at) != Some(PT_LOAD) {
            continue;
        }
        let field = |offset: usize| long(at + offset).ok_or_else(short);
        segments.push(Segment {
            from: field(8)?,
            at: field(24)?,
            bytes: field(32)?,
            length: field(40)?,
        });
    }
    // Debug information comes as segments of no length.
    segments.retain(|segment| segment.length > 0 || segment.bytes > 0);
    if segments.is_empty() {
        return Err(Error::Elf("they name nothing to load".into()));
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// An ELF file of segments (address, length, offset, bytes), with 4 KiB behind its headers.
    fn elf(segments: &[(u64, u64, u64, u64)]) -> Vec<u8> {
        let mut image = vec![0; HEADER];
        image[..6].copy_from_slice(b"\x7fELF\x02\x01");
        image[32] = 64;
        image[56] = u8::try_from(segments.len()).unwrap();
        for (at, length, from, bytes) in segments {
            image.extend(PT_LOAD.to_le_bytes());
            image.extend([0; 4]);
            for field in [*from, *at, *at, *bytes, *length, 0x1000] {
                image.extend(field.to_le_bytes());
            }
        }
        image.resize(image.len() + 4096, 0);
        image
    }

    #[test]
    fn segments_lie_in_memory_and_apart() {
        let refused = |segments: &[(u64, u64, u64, u64)]| {
            check(&elf(segments), 16 * MIB)
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default()
        };
        assert_eq!(refused(&[(MIB, MIB, 0, 10), (2 * MIB, 14 * MIB, 0, 0)]), "");
        for (segments, why) in [
            (&[][..], "they name nothing to load"),
            (&[(MIB, 0, 0, 0)], "they name nothing to load"),
            (&[(MIB - 1, 10, 0, 10)], "lies below 1 MiB"),
            (&[(2 * MIB, 10, 0, 1), (MIB, MIB + 1, 0, 1)], "lies over another"),
            (&[(MIB, 10, 0, 11)], "more bytes in the file than in memory"),
            (&[(MIB, MIB, 5000, 10)], "not in the file"),
            (&[(MIB, MIB, u64::MAX, 10)], "not in the file"),
            (&[(u64::MAX - 10, 100, 0, 10)], "around the end"),
            (
                &[(MIB, 15 * MIB + 1, 0, 10)],
                "it needs 16777217 bytes of memory and the machine has 16777216",
            ),
        ] {
            let said = refused(segments);
            assert!(said.contains(why), "{why}: {said:?}");
        }
    }

    #[test]
    fn headers_that_end_early_are_refused() {
        let whole = elf(&[(MIB, MIB, 0, 10)]);
        for length in 0..HEADER + PROGRAM_HEADER {
            assert!(check(&whole[..length], 16 * MIB).is_err(), "{length}");
        }
        let mut far = whole;
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(check(&far, 16 * MIB).is_err());
    }
}
