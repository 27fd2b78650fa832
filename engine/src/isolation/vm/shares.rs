//! Volumes and directories of the host's in a guest: each a directory that the monitor shares, mounted by the guest before the
//! container is made, and bound where the user wants it like any other source.

use std::path::{Path, PathBuf};

use berth_guest::layout;
use berth_guest::protocol::Share;
use serde_json::{Value, json};

use crate::config::ContainerConfig;
use crate::error::{At, Error, Result};
use crate::init;
use crate::paths::Paths;
use crate::spec::mounts;

/// One mount of the container's whose content is the host's.
#[derive(Debug)]
pub(super) struct Shared {
    tag: String,
    source: String,
    read_only: bool,
    /// Where the container has it.
    target: PathBuf,
    /// Of a file, which the monitor shares as a directory that holds it alone.
    name: Option<String>,
}

/// What a container's mounts take from the host. Sources that `-v` names and that are missing are made.
///
/// # Errors
///
/// [`Error::Unsupported`] for what is neither a directory nor a file.
pub(super) fn of(paths: &Paths, config: &ContainerConfig) -> Result<Vec<Shared>> {
    let mut shares = Vec::new();
    for mount in &config.host.mounts {
        if let Some((source, _)) = mounts::source(mount, paths)? {
            shares.push(share(shares.len(), &source, &mount.target, mount.read_only)?);
        }
    }
    if config.host.init {
        let (program, target) = (init::program(paths)?, Path::new(init::TARGET));
        shares.push(share(shares.len(), &program, target, true)?);
    }
    Ok(shares)
}

fn share(number: usize, source: &Path, target: &Path, read_only: bool) -> Result<Shared> {
    let source = source.canonicalize().at("resolve", source)?;
    let kind = std::fs::metadata(&source).at("inspect", &source)?.file_type();
    let name = match &source {
        _ if kind.is_dir() => None,
        file if kind.is_file() => file.file_name().map(|name| name.to_string_lossy().into_owned()),
        other => {
            return Err(Error::Unsupported {
                what: format!("bind mount {} with --isolation vm", other.display()),
                why: "it is neither a directory nor a file, and nothing else of the host's works in a guest"
                    .into(),
            });
        }
    };
    Ok(Shared {
        tag: format!("share{number}"),
        source: mounts::text(&source)?,
        read_only,
        target: target.to_owned(),
        name,
    })
}

/// In the monitor's words.
pub(super) fn outside(shares: &[Shared]) -> Value {
    let all = shares.iter().map(|share| {
        json!({
            "tag": share.tag,
            "path_on_host": share.source,
            "is_read_only": share.read_only,
        })
    });
    all.collect()
}

/// In the guest's.
pub(super) fn inside(shares: &[Shared]) -> Vec<Share> {
    let all = shares.iter().map(|share| Share {
        tag: share.tag.clone(),
        read_only: share.read_only,
    });
    all.collect()
}

/// Where the guest has what is mounted at `target`; none for what does not come from the host.
pub(super) fn source(shares: &[Shared], target: &Path) -> Option<String> {
    let share = shares.iter().find(|share| share.target == target)?;
    let root = layout::share(&share.tag);
    Some(match &share.name {
        Some(name) => format!("{root}/{name}"),
        None => root,
    })
}
