//! `rm`: what creating made, backwards.

use std::io::ErrorKind;

use crate::config::ContainerConfig;
use crate::container::{Status, Verb};
use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::flags::MountKind;
use crate::id::ContainerId;
use crate::paths::Paths;
use crate::record::{self, Durability};
use crate::volumes::Volumes;
use crate::{names, reconcile};

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
}

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] while it runs, unless forced.
    pub fn remove(&self, id: &ContainerId, options: RemoveOptions) -> Result<()> {
        let state = reconcile::state(&self.paths, id)?;
        if state.status.needs_shim() {
            if !options.force {
                let name = self
                    .config(id)
                    .map_or_else(|_| id.to_string(), |c| c.name.to_string());
                return Err(Error::Wrong {
                    verb: "remove",
                    name,
                    status: state.status,
                });
            }
            match self.end(id) {
                // With --rm the shim has removed it by now.
                Err(Error::NoSuchContainer(_)) => return Ok(()),
                other => other?,
            }
        }
        let _lock = match record::lock(&self.paths, id) {
            Err(Error::NoSuchContainer(_)) if options.force => return Ok(()),
            other => other?,
        };
        let mut state = reconcile::locked(&self.paths, id)?;
        let config = record::config(&self.paths, id).ok();
        if !state.status.allows(Verb::Remove) {
            let name = config.map_or_else(|| id.to_string(), |c| c.name.to_string());
            return Err(Error::Wrong {
                verb: "remove",
                name,
                status: state.status,
            });
        }
        state.status = Status::Removing;
        record::save_state(&self.paths, id, &state, Durability::Renamed)?;
        erase(&self.paths, id, config.as_ref(), options.volumes)?;
        if let Some(config) = &config {
            self.event("destroy", config, &[]);
        }
        Ok(())
    }
}

/// Takes everything away that belongs to a container which does not run. Each step is fine when there is nothing to do,
/// so a removal that was cut short is finished by the next.
pub(crate) fn erase(
    paths: &Paths,
    id: &ContainerId,
    config: Option<&ContainerConfig>,
    anonymous_volumes: bool,
) -> Result<()> {
    if let Some(config) = config {
        let volumes = Volumes::new(&paths.root);
        for mount in &config.host.mounts {
            if let MountKind::Volume { name: Some(name), .. } = &mount.kind {
                let fail = |e| Error::Volume {
                    name: name.clone(),
                    source: Box::new(e),
                };
                volumes.detach(name, id.as_str()).map_err(fail)?;
                if anonymous_volumes && volumes.inspect(name).is_ok_and(|v| v.anonymous) {
                    // Somebody else may mount it by its random name; then it stays.
                    let _ = volumes.remove(name, true);
                }
            }
        }
        if names::holder(paths, &config.name)?.as_ref() == Some(id) {
            names::release(paths, &config.name)?;
        }
    }
    remove_tree(&paths.run_dir(id))?;
    remove_tree(&paths.container(id))
}

fn remove_tree(dir: &std::path::Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other.at("remove", dir),
    }
}
