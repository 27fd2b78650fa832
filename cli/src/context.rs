//! What every verb starts from: the global flags. Nothing is opened before a verb asks.

use std::path::PathBuf;

use berth_engine::Engine;
use berth_engine::events::{Event, Events, Kind};
use berth_engine::kernel::Kernels;
use berth_engine::network::{Networks, Paths};
use berth_engine::volumes::Volumes;
use berth_images::Images;

use crate::config;
use crate::failure::Result;

/// The global flags.
#[derive(Debug, Clone)]
pub struct Context {
    /// `--root`.
    pub root: PathBuf,
    /// `--state`.
    pub state: PathBuf,
    /// `--config`.
    pub config: PathBuf,
    /// Whether the user named it: then it must be there.
    pub config_is_asked_for: bool,
}

impl Context {
    /// The engine.
    pub fn engine(&self) -> Result<Engine> {
        Ok(Engine::open(berth_engine::Paths {
            root: self.root.clone(),
            state: self.state.clone(),
        })?)
    }

    /// The image store, with registries as the configuration file says.
    pub fn images(&self) -> Result<Images> {
        Ok(Images::open(&self.root)?)
    }

    /// As [`Context::images`], for verbs that talk to registries.
    pub fn registries(&self) -> Result<Images> {
        Ok(self
            .images()?
            .with_registry(config::load(&self.config, self.config_is_asked_for)?))
    }

    /// Named volumes.
    pub fn volumes(&self) -> Volumes {
        Volumes::new(&self.root)
    }

    /// Kernels of microVMs.
    pub fn kernels(&self) -> Kernels {
        Kernels::new(&self.root)
    }

    /// Where the network keeps its files.
    pub fn network_paths(&self) -> Paths {
        Paths::new(&self.root, &self.state)
    }

    /// User-defined networks.
    pub fn networks(&self) -> Result<Networks> {
        Ok(Networks::open(&self.network_paths())?)
    }

    /// The event log.
    pub fn events(&self) -> Events {
        Events::new(&self.root)
    }

    /// Writes to the event log what a verb did with an object and a container.
    pub fn of_container(&self, kind: Kind, action: &str, id: &str, container: &str) -> Result<()> {
        let event = Event::new(kind, action, id)
            .with("name", id)
            .with("container", container);
        Ok(self.events().append(&event)?)
    }

    /// Writes to the event log what a verb did.
    pub fn happened(&self, kind: Kind, action: &str, id: &str) -> Result<()> {
        Ok(self
            .events()
            .append(&Event::new(kind, action, id).with("name", id))?)
    }
}
