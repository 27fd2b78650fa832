//! A container joins a network or leaves one. Recorded first, so that its next start finds it there; if it runs, the network is
//! changed next and then the container's `/etc/hosts`, as docker has it. Other files need nothing: its name server reads what
//! it is attached to anew for each question.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::config::ContainerConfig;
use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::flags::NetworkMode;
use crate::id::ContainerId;
use crate::network::{self, Endpoint, files};
use crate::{reconcile, record};

/// A longer `/etc/hosts` is the container's own work and left to it.
const HOSTS_MAX: u64 = 1 << 20;

/// In a running container's directory: the network that is being joined or left.
pub(crate) const CHANGING: &str = "network.changing";

impl Engine {
    /// Joins a container to one more network, at once if it runs. On failure it has not joined.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchContainer`]; [`Error::Invalid`] for a container whose network is not its own or that asked for none;
    /// [`Error::Network`], or a failed write.
    pub fn connect(&self, id: &ContainerId, endpoint: &Endpoint) -> Result<()> {
        let _lock = record::lock(&self.paths, id)?;
        let state = reconcile::locked(&self.paths, id)?;
        self.finish_change(id, state.pid > 0)?;
        let before = record::config(&self.paths, id)?;
        changeable(&before)?;
        for alias in &endpoint.aliases {
            network::validate_alias(alias).map_err(|e| failed(id, e))?;
        }
        let mut networks = before.endpoints();
        if networks.iter().any(|other| other.network == endpoint.network) {
            let (container, network) = (id.to_string(), endpoint.network.clone());
            return Err(failed(id, network::Error::Attached { container, network }));
        }
        networks.push(endpoint.clone());
        let runs = state.pid > 0;
        self.change(&before, networks, runs, &endpoint.network, |config| {
            self.join(config, endpoint)
        })
    }

    /// Takes a container off a network, at once if it runs.
    ///
    /// # Errors
    ///
    /// As [`Engine::connect`].
    pub fn disconnect(&self, id: &ContainerId, network: &str) -> Result<()> {
        let _lock = record::lock(&self.paths, id)?;
        let state = reconcile::locked(&self.paths, id)?;
        self.finish_change(id, state.pid > 0)?;
        let before = record::config(&self.paths, id)?;
        changeable(&before)?;
        let mut networks = before.endpoints();
        let count = networks.len();
        networks.retain(|other| other.network != network);
        if networks.len() == count {
            let (container, network) = (id.to_string(), network.to_owned());
            return Err(failed(id, network::Error::NotAttached { container, network }));
        }
        let runs = state.pid > 0;
        self.change(&before, networks, runs, network, |config| {
            self.leave(config, network)
        })
    }

    /// Records the networks, then does `now` if the container is attached; the record says what is in force. Killed on the way it
    /// leaves a note of the network it was about, for [`Engine::finish_change`].
    fn change(
        &self,
        before: &ContainerConfig,
        networks: Vec<Endpoint>,
        runs: bool,
        network: &str,
        now: impl FnOnce(&ContainerConfig) -> Result<()>,
    ) -> Result<()> {
        let config = ContainerConfig {
            networks: Some(networks),
            ..before.clone()
        };
        if !runs {
            return record::save_config(&self.paths, &config);
        }
        let note = self.paths.run_dir(&config.id).join(CHANGING);
        fs::write(&note, network).at("write", &note)?;
        record::save_config(&self.paths, &config)?;
        let changed = match now(&config) {
            Ok(()) => self.reload(&config, false),
            // It ended a moment ago; its next start reads the record.
            Err(e) if is_not_attached(&e) => Ok(()),
            Err(e) => {
                record::save_config(&self.paths, before)?;
                Err(e)
            }
        };
        forget(&note)?;
        changed
    }

    /// Brings a change that was killed half way to its end: whatever there is of the place on that network goes, and if the
    /// record has it, it is made anew.
    fn finish_change(&self, id: &ContainerId, runs: bool) -> Result<()> {
        let note = self.paths.run_dir(id).join(CHANGING);
        let network = match fs::read_to_string(&note) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.at("read", &note)?,
        };
        // An empty note was cut short itself, before anything had changed.
        if runs && !network.is_empty() {
            let config = record::config(&self.paths, id)?;
            match self.leave(&config, &network) {
                Err(e) if !is_not_attached(&e) => return Err(e),
                _ => {}
            }
            let recorded = config.endpoints();
            if let Some(endpoint) = recorded.iter().find(|endpoint| endpoint.network == network) {
                self.join(&config, endpoint)?;
            }
            self.reload(&config, false)?;
        }
        forget(&note)
    }

    fn join(&self, config: &ContainerConfig, endpoint: &Endpoint) -> Result<()> {
        let (id, paths) = (&config.id, reconcile::network_paths(&self.paths));
        let place = network::connect(&paths, id.as_str(), endpoint).map_err(|e| failed(id, e))?;
        let line = files::own_line(place.ip, &config.hostname, config.domainname.as_deref());
        let hosts = self.paths.run_dir(id).join("hosts");
        if let Err(e) = append(&hosts, &line).at("write", &hosts) {
            // The first error is the one to tell.
            let _ = network::disconnect(&paths, id.as_str(), &place.network);
            return Err(e);
        }
        Ok(())
    }

    fn leave(&self, config: &ContainerConfig, network: &str) -> Result<()> {
        let (id, paths) = (&config.id, reconcile::network_paths(&self.paths));
        let attached = network::inspect(&paths, id.as_str()).map_err(|e| failed(id, e))?;
        network::disconnect(&paths, id.as_str(), network).map_err(|e| failed(id, e))?;
        let places = attached.map(|(places, _)| places).unwrap_or_default();
        if let Some(place) = places.iter().find(|place| place.network == network) {
            let line = files::own_line(place.ip, &config.hostname, config.domainname.as_deref());
            let hosts = self.paths.run_dir(id).join("hosts");
            remove(&hosts, &line).at("write", &hosts)?;
        }
        Ok(())
    }
}

fn is_not_attached(e: &Error) -> bool {
    matches!(e, Error::Network { source, .. } if matches!(**source, network::Error::NotAttached { .. }))
}

fn forget(note: &Path) -> Result<()> {
    match fs::remove_file(note) {
        // Swept with the rest of a run that ended meanwhile.
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", note, e)),
        _ => Ok(()),
    }
}

/// Refuses containers whose networks are not theirs to change.
fn changeable(config: &ContainerConfig) -> Result<()> {
    let why = match &config.host.network {
        NetworkMode::Bridge | NetworkMode::Named(_) => return Ok(()),
        NetworkMode::Host => "it is on the host's".to_owned(),
        NetworkMode::None => "it was created with --network none".to_owned(),
        NetworkMode::Container(other) => format!("they are those of container {other}"),
    };
    Err(Error::Invalid {
        what: format!("change of the networks of container {}", config.name),
        why,
    })
}

fn failed(id: &ContainerId, e: network::Error) -> Error {
    Error::Network {
        id: id.short().to_owned(),
        source: Box::new(e),
    }
}

/// In place, for the container has this very file mounted, and after what it may have written itself.
fn append(hosts: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).open(hosts)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    let gap = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{gap}{line}").as_bytes())
}

fn remove(hosts: &Path, line: &str) -> io::Result<()> {
    let mut text = Vec::new();
    File::open(hosts)?.take(HOSTS_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > HOSTS_MAX {
        return Ok(());
    }
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let kept: Vec<u8> = lines
        .filter(|l| *l != line.as_bytes())
        .flatten()
        .copied()
        .collect();
    fs::write(hosts, kept)
}
