//! A real image to run: nginx on Debian, which answers `hello from nginx in berth`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::berth::Output;

/// What its page says.
pub const NGINX_SAYS: &str = "hello from nginx in berth";

/// Its OCI layout, tag `latest`, made once by `scripts/make-image` and kept in `target/images`; takes `mmdebstrap` and `umoci`.
///
/// # Panics
///
/// When it cannot be made.
#[must_use]
pub fn nginx_layout() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let layout = workspace.join("target/images/nginx");
    let made = Command::new(workspace.join("scripts/make-image"))
        .arg("nginx")
        .arg(&layout)
        .output()
        .expect("start make-image");
    let _ = Output::from(made).ok();
    layout
}

/// Writes it to an archive that `berth load` calls `nginx:1`; takes `skopeo`, too.
///
/// # Panics
///
/// When it cannot be made.
pub fn nginx_archive(to: &Path) {
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet"])
        .arg(format!("oci:{}:latest", nginx_layout().display()))
        .arg(format!("oci-archive:{}:nginx:1", to.display()))
        .output()
        .expect("start skopeo");
    let _ = Output::from(copied).ok();
}
