//! Lists of CPUs and memory nodes (`0-3,5`), held against what the host has before anything is made.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// More than any host has; a list is foreign text.
const NUMBER_MAX: u32 = 1 << 16;

/// Refuses a list that names what is not online. `online` is the kernel's own list, in `/sys/devices/system`; where it cannot be
/// read the kernel judges alone.
pub(super) fn check(flag: &str, asked: &str, online: &str) -> Result<()> {
    let invalid = |why: String| Error::Invalid {
        what: format!("{flag} {asked}"),
        why,
    };
    let wanted = parse(asked).ok_or_else(|| invalid("expected a list such as 0-3,5".into()))?;
    let Ok(text) = std::fs::read_to_string(online) else {
        return Ok(());
    };
    match parse(&text) {
        Some(there_are) if !wanted.is_subset(&there_are) => {
            Err(invalid(format!("the host has {}", text.trim())))
        }
        _ => Ok(()),
    }
}

fn parse(list: &str) -> Option<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > NUMBER_MAX {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_and_ranges() {
        assert_eq!(parse("0-2,5\n"), Some([0, 1, 2, 5].into()));
        for bad in ["", "a", "2-1", "1,", "-1", "0-99999999", "0-3:1/2"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_the_host_has_not_is_refused_and_told() {
        let file = std::env::temp_dir().join(format!("berth-cpus-{}", std::process::id()));
        std::fs::write(&file, "0-1\n").expect("write");
        let online = file.to_str().expect("UTF-8");
        assert!(check("--cpuset-cpus", "1", online).is_ok());
        let error = check("--cpuset-cpus", "0-2", online)
            .expect_err("there are two")
            .to_string();
        assert!(
            error.contains("0-2") && error.contains("the host has 0-1"),
            "{error}"
        );
        std::fs::remove_file(&file).expect("remove");
        assert!(check("--cpuset-cpus", "7", online).is_ok(), "nobody knows");
    }
}
