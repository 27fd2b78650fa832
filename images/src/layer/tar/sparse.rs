//! Maps of sparse files: where in the file the stored bytes go.

use super::header::{Problem, number};

/// A run of stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// Checks that a map is ordered, stays within the file and accounts for exactly the stored bytes: a map that does
/// not is how one parser is made to read data as headers.
pub(super) fn check(map: &[Extent], real_size: u64, stored: u64) -> Result<(), Problem> {
    let (mut end, mut sum) = (0u64, 0u64);
    for extent in map {
        if extent.offset < end {
            return Err("sparse map overlaps or goes backwards".to_owned());
        }
        end = extent
            .offset
            .checked_add(extent.length)
            .ok_or("sparse map is out of range")?;
        sum += extent.length;
    }
    if end > real_size {
        return Err("sparse map goes beyond the file".to_owned());
    }
    if sum != stored {
        return Err(format!("sparse map covers {sum} bytes but {stored} are stored"));
    }
    Ok(())
}

/// Extents of an old GNU header or extension block: pairs of 12-byte numbers, ended by an empty one.
pub(super) fn gnu_pairs(fields: &[u8], map: &mut Vec<Extent>) -> Result<(), Problem> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let part = |field: &[u8]| {
            number(field)
                .ok()
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| "sparse map holds a malformed number".to_owned())
        };
        map.push(Extent {
            offset: part(&pair[..12])?,
            length: part(&pair[12..])?,
        });
    }
    Ok(())
}

/// Pairs of a flat list of numbers.
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Extent>, Problem> {
    if !numbers.len().is_multiple_of(2) {
        return Err("sparse map has an odd count of numbers".to_owned());
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|p| Extent {
            offset: p[0],
            length: p[1],
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_must_fit_its_file_and_its_data() {
        let e = |offset, length| Extent { offset, length };
        assert!(check(&[], 10, 0).is_ok());
        assert!(check(&[e(0, 1), e(5, 5)], 10, 6).is_ok());
        assert!(check(&[e(5, 1), e(0, 1)], 10, 2).is_err(), "backwards");
        assert!(check(&[e(0, 3), e(2, 1)], 10, 4).is_err(), "overlap");
        assert!(check(&[e(8, 4)], 10, 4).is_err(), "beyond the end");
        assert!(check(&[e(0, 4)], 10, 5).is_err(), "bytes left over");
        assert!(check(&[e(u64::MAX, 2)], 10, 2).is_err(), "overflow");
        assert!(
            check(&[e(0, u64::MAX), e(u64::MAX, u64::MAX)], u64::MAX, 1).is_err(),
            "overflow of the sum"
        );
    }
}
