//! `unified`: v2 control files by name (runtime-spec config-linux.md#unified).

use std::collections::HashMap;

use super::{invalid, unsupported};
use crate::cgroup::Cgroup;
use crate::error::{Error, Result};

const SETTING: &str = "linux.resources.unified";

pub(super) fn apply(cgroup: &Cgroup, files: &HashMap<String, String>) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    for (file, value) in files {
        check(file, value)?;
    }
    let Some(dir) = &cgroup.unified else {
        return Err(unsupported(
            SETTING,
            "this cgroup has no part in a cgroup v2 tree",
        ));
    };
    let mut files: Vec<_> = files.iter().collect();
    // The same order every time, so the same error every time.
    files.sort_unstable();
    for (file, value) in files {
        if !dir.has(file) {
            let controller = file.split('.').next().unwrap_or_default();
            let present = dir.read("cgroup.controllers")?;
            let reason = if present.split_ascii_whitespace().any(|name| name == controller) {
                format!("{} has no {file}", dir.path().display())
            } else {
                format!(
                    "cgroup {} has no {controller} controller for {file}",
                    dir.path().display()
                )
            };
            return Err(Error::Unsupported {
                setting: SETTING,
                reason,
            });
        }
        // io.max and its like take one device per write.
        for line in value.lines().filter(|line| !line.is_empty()) {
            dir.try_write(file, line).map_err(|source| Error::Write {
                setting: Some(SETTING),
                file: dir.path().join(file),
                value: line.to_owned(),
                source,
            })?;
        }
    }
    Ok(())
}

pub(super) fn check(file: &str, value: &str) -> Result<()> {
    let bad = |reason| Err(invalid(SETTING, &file.escape_debug(), reason));
    if file.contains('/')
        || !file.contains('.')
        || file.starts_with('.')
        || file.chars().any(char::is_control)
    {
        return bad("is not the name of a control file");
    }
    // The rest of cgroup.* moves, freezes and kills processes, which is no resource.
    if file.starts_with("cgroup.")
        && !matches!(
            file,
            "cgroup.max.depth" | "cgroup.max.descendants" | "cgroup.pressure"
        )
    {
        return bad("does not set a resource");
    }
    if value.chars().any(|c| c.is_control() && c != '\n') {
        return Err(invalid(
            SETTING,
            &value.escape_debug(),
            "holds a control character",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_cgroup_and_set_resources() {
        for good in ["memory.high", "io.max", "hugetlb.2MB.max", "cgroup.max.depth"] {
            check(good, "1").unwrap();
        }
        for bad in [
            "",
            "..",
            "../memory.max",
            "a/memory.max",
            "tasks",
            ".hidden",
            "memory.\nmax",
            "cgroup.procs",
        ] {
            assert!(check(bad, "1").is_err(), "{bad:?}");
        }
        assert!(check("cgroup.kill", "1").is_err());
        assert!(check("memory.high", "1\0").is_err());
    }
}
