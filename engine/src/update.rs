//! `update` and `rename`: the record replaced whole, then the shim told.

use crate::config::{ContainerConfig, Resources};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::flags::RestartPolicy;
use crate::id::{ContainerId, ContainerName};
use crate::shim::protocol::{self, Request};
use crate::{names, network, reconcile, record, spec};

/// What to change; none stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateRequest {
    /// Limits; those that are none stay.
    pub resources: Resources,
    /// `--restart`.
    pub restart: Option<RestartPolicy>,
}

impl Engine {
    /// Changes limits and policy, of a running container at once.
    pub fn update(&self, id: &ContainerId, request: &UpdateRequest) -> Result<()> {
        let _lock = record::lock(&self.paths, id)?;
        let state = reconcile::locked(&self.paths, id)?;
        let before = record::config(&self.paths, id)?;
        let mut config = before.clone();
        merge(&mut config.host.resources, &request.resources);
        config.host.restart = request.restart.unwrap_or(config.host.restart);
        spec::check(&config)?;
        record::save_config(&self.paths, &config)?;
        if state.status.needs_shim() {
            let limits = request.resources != Resources::default();
            if let Err(e) = self.reload(&config, limits) {
                // The record says what is in force.
                record::save_config(&self.paths, &before)?;
                return Err(e);
            }
        }
        self.event("update", &config, &[]);
        Ok(())
    }

    /// Gives it another name.
    pub fn rename(&self, id: &ContainerId, name: &ContainerName) -> Result<()> {
        let _lock = record::lock(&self.paths, id)?;
        let state = reconcile::locked(&self.paths, id)?;
        let mut config = record::config(&self.paths, id)?;
        if config.name == *name {
            return Err(Error::Invalid {
                what: format!("name {name}"),
                why: "it has that name already".into(),
            });
        }
        // New name first: killed in between, the container has two names rather than none.
        names::take(&self.paths, name, id)?;
        let old = std::mem::replace(&mut config.name, name.clone());
        record::save_config(&self.paths, &config)?;
        names::release(&self.paths, &old)?;
        if state.status.needs_shim() {
            network::rename(&reconcile::network_paths(&self.paths), id.as_str(), name.as_str()).map_err(
                |e| Error::Network {
                    id: id.short().to_owned(),
                    source: Box::new(e),
                },
            )?;
            self.reload(&config, false)?;
        }
        self.event("rename", &config, &[("oldName", old.to_string())]);
        Ok(())
    }

    /// Has the shim read the record again.
    pub(crate) fn reload(&self, config: &ContainerConfig, limits: bool) -> Result<()> {
        match protocol::connect(&self.paths.run_dir(&config.id)) {
            Ok(socket) => self
                .ask(
                    &socket,
                    config,
                    &Request::Reload { limits },
                    Some(protocol::PATIENCE),
                )
                .map(drop),
            // It has just ended; the next start reads the record.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(()),
            Err(e) => Err(Error::io("connect to", self.paths.run_dir(&config.id), e)),
        }
    }
}

fn merge(now: &mut Resources, asked: &Resources) {
    macro_rules! take {
        ($($field:ident),*) => { $( if asked.$field.is_some() { now.$field = asked.$field.clone(); } )* };
    }
    take!(
        memory,
        memory_swap,
        memory_reservation,
        cpu_shares,
        cpuset_cpus,
        cpuset_mems,
        pids_limit,
        blkio_weight
    );
    // --cpus and the quota are two ways to say one thing.
    if asked.cpus.is_some() {
        (now.cpus, now.cpu_quota, now.cpu_period) = (asked.cpus, None, None);
    }
    if asked.cpu_quota.is_some() || asked.cpu_period.is_some() {
        now.cpus = None;
    }
    take!(cpu_quota, cpu_period);
}
