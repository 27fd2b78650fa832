//! The handle every verb hangs on, and how a name becomes a container.

use berth_images::Images;

use crate::container::{State, Status};
use crate::error::{Error, Result};
use crate::events::{Event, Events, Kind};
use crate::id::{ContainerId, ContainerName};
use crate::paths::Paths;
use crate::{ContainerConfig, names, reconcile, record};

/// The containers of one host. Opening is cheap; many processes may hold one at once.
///
/// The verbs are methods, each in the file of its name.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) paths: Paths,
    pub(crate) images: Images,
    pub(crate) shim: Option<std::path::PathBuf>,
}

impl Engine {
    /// Opens the engine, making directories that are missing.
    pub fn open(paths: Paths) -> Result<Engine> {
        paths.prepare()?;
        let images = Images::open(&paths.root).map_err(|e| Error::Image {
            name: paths.root.display().to_string(),
            source: Box::new(e),
        })?;
        Ok(Engine {
            paths,
            images,
            shim: None,
        })
    }

    /// The same engine, with that program as its shim instead of `BERTH_SHIM` or the `berth-shim` beside the running
    /// program.
    #[must_use]
    pub fn with_shim(self, program: impl Into<std::path::PathBuf>) -> Engine {
        Engine {
            shim: Some(program.into()),
            ..self
        }
    }

    /// Where things are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The image store beside the containers.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Finds a container by name, id, or the unambiguous start of an id.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchContainer`], [`Error::Ambiguous`].
    pub fn find(&self, text: &str) -> Result<ContainerId> {
        if let Ok(id) = text.parse::<ContainerId>()
            && self.paths.container(&id).is_dir()
        {
            return Ok(id);
        }
        if let Ok(name) = text.parse::<ContainerName>()
            && let Some(id) = names::holder(&self.paths, &name)?
            && self.paths.container(&id).is_dir()
        {
            return Ok(id);
        }
        let missing = || Error::NoSuchContainer(text.to_owned());
        if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut found = record::ids(&self.paths)?
            .into_iter()
            .filter(|id| id.as_str().starts_with(text));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// What a container is, as the user asked for it.
    pub fn config(&self, id: &ContainerId) -> Result<ContainerConfig> {
        record::config(&self.paths, id)
    }

    /// What it is doing, put right first if its shim is gone.
    pub fn state(&self, id: &ContainerId) -> Result<State> {
        reconcile::state(&self.paths, id)
    }

    /// Shorthand for the status in [`Engine::state`].
    pub fn status(&self, id: &ContainerId) -> Result<Status> {
        Ok(self.state(id)?.status)
    }
}

impl Engine {
    /// Notes what happened for `berth events`. An event that cannot be written stops no container.
    pub(crate) fn event(&self, action: &str, config: &ContainerConfig, more: &[(&str, String)]) {
        note(&self.paths, action, config, more);
    }
}

/// Notes what happened to a container. An event that cannot be written stops no container.
pub(crate) fn note(paths: &Paths, action: &str, config: &ContainerConfig, more: &[(&str, String)]) {
    let mut event = Event::new(Kind::Container, action, config.id.as_str())
        .with("name", config.name.as_str())
        .with("image", config.image.name.as_str());
    for (key, value) in more {
        event = event.with(key, value.as_str());
    }
    let _ = Events::new(&paths.root).append(&event);
}
