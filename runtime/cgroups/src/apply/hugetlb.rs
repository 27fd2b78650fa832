//! Huge pages. On a hybrid host the v2 tree may hold the controller that v1 lacks.

use oci_spec::runtime::LinuxHugepageLimit;

use super::{invalid, unsupported};
use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::hierarchy::Controller;

const SETTING: &str = "linux.resources.hugepageLimits";

pub(super) fn apply(cgroup: &Cgroup, limits: &[LinuxHugepageLimit]) -> Result<()> {
    for limit in limits {
        let size = limit.page_size();
        check_page_size(size)?;
        let (dir, files, value) = match (cgroup.v1_dir(Controller::Hugetlb), &cgroup.unified) {
            (Some(dir), _) => {
                let files = [
                    format!("hugetlb.{size}.limit_in_bytes"),
                    format!("hugetlb.{size}.rsvd.limit_in_bytes"),
                ];
                (dir, files, limit.limit().to_string())
            }
            (None, Some(dir)) => {
                let files = [format!("hugetlb.{size}.max"), format!("hugetlb.{size}.rsvd.max")];
                (dir, files, super::max_or(limit.limit()))
            }
            (None, None) => {
                let path = cgroup.display_path();
                return Err(Error::NoController {
                    setting: SETTING,
                    controller: "hugetlb",
                    path,
                });
            }
        };
        if !dir.has(&files[0]) {
            return Err(unsupported(
                SETTING,
                &format!("{} has no {}", dir.path().display(), files[0]),
            ));
        }
        dir.write(&files[0], &value)?;
        // Reservations (kernel 5.7) fail at mmap rather than with SIGBUS at the first touch.
        if dir.has(&files[1]) {
            dir.write(&files[1], &value)?;
        }
    }
    Ok(())
}

/// `64KB`, `2MB`, `1GB`: it becomes part of a file name.
fn check_page_size(size: &str) -> Result<()> {
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    match digits {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err(invalid(
            "linux.resources.hugepageLimits.pageSize",
            &size.escape_debug(),
            "is not a size like 2MB",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_cannot_name_other_files() {
        for good in ["64KB", "2MB", "1GB"] {
            check_page_size(good).unwrap();
        }
        for bad in ["", "MB", "2", "2mb", "../2MB", "2MB/../x", "2 MB", "x2MB"] {
            assert!(check_page_size(bad).is_err(), "{bad:?}");
        }
    }
}
