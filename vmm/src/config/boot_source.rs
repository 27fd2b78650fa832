//! What the machine starts.

use std::path::PathBuf;

use linux_loader::cmdline::Cmdline;
use serde::{Deserialize, Serialize};

use super::Drive;
use crate::arch::x86_64::layout::CMDLINE_MAX;
use crate::error::{Error, Result};

/// What the kernel is told when the configuration does not say.
pub const DEFAULT_CMDLINE: &str = "reboot=k panic=1 pci=off console=ttyS0";

/// Kernel, initial file system and command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    /// vmlinux or bzImage.
    pub kernel_image_path: PathBuf,
    /// A cpio archive, compressed as the kernel likes it.
    pub initrd_path: Option<PathBuf>,
    /// The command line; [`DEFAULT_CMDLINE`] when there is none.
    pub boot_args: Option<String>,
}

impl BootSource {
    /// The whole command line: what was asked for, and where the root file system is. Arguments of init (after `--`) stay
    /// last.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a line that is too long for the kernel or holds a zero byte.
    pub fn cmdline(&self, root: Option<&Drive>) -> Result<String> {
        let invalid = |e: linux_loader::cmdline::Error| Error::Invalid {
            field: "boot-source.boot_args",
            why: format!(
                "with the root device it must be shorter than {CMDLINE_MAX} bytes and hold no zero byte: {e}"
            ),
        };
        let args = self.boot_args.as_deref().unwrap_or(DEFAULT_CMDLINE);
        let mut line = Cmdline::try_from(args, CMDLINE_MAX).map_err(invalid)?;
        if let Some(drive) = root {
            let device = match &drive.partuuid {
                Some(id) => format!("root=PARTUUID={id}"),
                None => "root=/dev/vda".into(),
            };
            let mode = if drive.is_read_only { "ro" } else { "rw" };
            line.insert_str(format!("{device} {mode}")).map_err(invalid)?;
        }
        let line = line.as_cstring().map_err(invalid)?;
        Ok(line.into_string().expect("made of strings"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &str, root: Option<&str>) -> Result<String, String> {
        let source = BootSource {
            kernel_image_path: "/k".into(),
            initrd_path: None,
            boot_args: Some(args.into()),
        };
        let root: Option<Drive> = root.map(|text| serde_json::from_str(text).unwrap());
        source.cmdline(root.as_ref()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_root_device_stands_before_the_arguments_of_init() {
        let root = r#"{"drive_id": "r", "path_on_host": "/r", "is_root_device": true, "is_read_only": true}"#;
        assert_eq!(line("quiet", None).unwrap(), "quiet");
        assert_eq!(line("quiet", Some(root)).unwrap(), "quiet root=/dev/vda ro");
        assert_eq!(
            line("quiet -- -x", Some(root)).unwrap(),
            "quiet root=/dev/vda ro -- -x"
        );
        let part =
            r#"{"drive_id": "r", "path_on_host": "/r", "is_root_device": true, "partuuid": "0eaa91a0-01"}"#;
        assert_eq!(
            line("quiet", Some(part)).unwrap(),
            "quiet root=PARTUUID=0eaa91a0-01 rw"
        );
    }

    #[test]
    fn a_line_the_kernel_would_cut_is_refused() {
        let root = r#"{"drive_id": "r", "path_on_host": "/r", "is_root_device": true}"#;
        let fits = "x".repeat(CMDLINE_MAX - 1);
        assert_eq!(line(&fits, None).unwrap(), fits);
        assert!(line(&fits, Some(root)).unwrap_err().contains("boot_args"));
        assert!(line(&format!("{fits}x"), None).is_err());
        assert!(line("a\0b", None).is_err());
    }
}
