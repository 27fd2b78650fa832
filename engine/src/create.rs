//! `create`: flags and image become a record on disk.
//!
//! Order: directory (locked) → name → volumes → record. A crash before the record leaves a directory without one,
//! which [`crate::reconcile`] removes.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_images::config::RunConfig;
use jiff::Timestamp;

use crate::config::{ContainerConfig, CreateRequest, HostConfig, ImageOrigin};
use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::flags::{
    Healthcheck, Isolation, MountKind, MountSpec, NetworkMode, Propagation, Seccomp, SecurityOpt, Signal,
    UtsMode,
};
use crate::id::{ContainerId, ContainerName};
use crate::network::{Networks, PortMapping};
use crate::paths::Paths;
use crate::ports;
use crate::record::Durability;
use crate::volumes::Volumes;
use crate::{names, reconcile, record, remove, spec};

/// A container just made.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// Its name, made up unless asked for.
    pub name: ContainerName,
    /// What the user should know, one sentence each.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container of an image in the store; nothing runs yet. On failure nothing is left behind. Once this returns, the
    /// container survives a power cut. Blocking: waits for the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] when the image is not in the store, [`Error::NameTaken`], [`Error::NoCommand`],
    /// [`Error::Invalid`], [`Error::Unsupported`], or a failed write.
    pub fn create(&self, request: &CreateRequest) -> Result<Created> {
        let (origin, image) = self.origin(request)?;
        self.create_from(request, origin, &image)
    }

    /// As [`Engine::create`] for who starts the container next, which brings its record to the disk
    /// ([`StartOptions::is_new`](crate::StartOptions)): after a power cut before that it may never have been.
    pub fn create_to_start(&self, request: &CreateRequest) -> Result<Created> {
        let (origin, image) = self.origin(request)?;
        self.make(request, origin, &image, Durability::Renamed)
    }

    /// As [`Engine::create`], from an image config and layers at hand.
    pub fn create_from(
        &self,
        request: &CreateRequest,
        origin: ImageOrigin,
        image: &RunConfig,
    ) -> Result<Created> {
        self.make(request, origin, image, Durability::Synced)
    }

    fn origin(&self, request: &CreateRequest) -> Result<(ImageOrigin, RunConfig)> {
        let refused = |e| Error::Image {
            name: request.image.clone(),
            source: Box::new(e),
        };
        let image = self.images.resolve(&request.image).map_err(refused)?;
        if request.host.isolation == Isolation::Vm {
            self.images.disks(&image).map_err(refused)?;
        }
        let origin = ImageOrigin {
            name: request.image.clone(),
            id: image.id.to_string(),
            layers: image.layers,
        };
        Ok((origin, image.config.config))
    }

    fn make(
        &self,
        request: &CreateRequest,
        origin: ImageOrigin,
        image: &RunConfig,
        durability: Durability,
    ) -> Result<Created> {
        crate::conflicts::check(request)?;
        let id = ContainerId::random().at("read", "/dev/urandom")?;
        let mut warnings = Vec::new();
        // The name is settled below; everything that can be refused is refused before anything exists.
        let placeholder = request.name.clone().map_or_else(|| names::random(0), Ok)?;
        let mut config = resolve(
            request,
            origin,
            image,
            &id,
            placeholder,
            &mut warnings,
            &self.paths,
        )?;
        spec::check(&config)?;
        let _lock = record::make(&self.paths, &id)?;
        let made = self
            .reserve(request, &mut config)
            .and_then(|()| record::save_first_config(&self.paths, &config))
            .and_then(|()| match durability {
                Durability::Synced => record::sync_config(&self.paths, &config),
                Durability::Renamed => Ok(()),
            });
        if let Err(e) = made {
            // What failed first is what the user hears.
            let _ = remove::erase(&self.paths, &id, Some(&config), true);
            return Err(e);
        }
        log::debug!(
            "created container {id}, named {}, of image {}",
            config.name,
            config.image.id
        );
        self.event("create", &config, &[]);
        Ok(Created {
            id,
            name: config.name,
            warnings,
        })
    }

    fn reserve(&self, request: &CreateRequest, config: &mut ContainerConfig) -> Result<()> {
        if request.name.is_some() {
            names::take(&self.paths, &config.name, &config.id)?;
        } else {
            let mut attempt = 0;
            loop {
                match names::take(&self.paths, &config.name, &config.id) {
                    Err(Error::NameTaken { .. }) if attempt < 100 => {
                        attempt += 1;
                        config.name = names::random(attempt)?;
                    }
                    other => break other?,
                }
            }
        }
        let volumes = Volumes::new(&self.paths.root);
        for mount in &mut config.host.mounts {
            if let MountKind::Volume { name, .. } = &mut mount.kind {
                let fail = |name: &Option<String>, e| Error::Volume {
                    name: name.clone().unwrap_or_default(),
                    source: Box::new(e),
                };
                let volume = volumes
                    .create(name.as_deref(), BTreeMap::new(), BTreeMap::new())
                    .map_err(|e| fail(name, e))?;
                // Noted on the record before it is used: removal looks here.
                *name = Some(volume.name.clone());
                volumes
                    .attach(&volume.name, config.id.as_str())
                    .map_err(|e| fail(name, e))?;
            }
        }
        Ok(())
    }
}

/// Flags over the image's defaults, docker's rules.
fn resolve(
    request: &CreateRequest,
    origin: ImageOrigin,
    image: &RunConfig,
    id: &ContainerId,
    name: ContainerName,
    warnings: &mut Vec<String>,
    paths: &Paths,
) -> Result<ContainerConfig> {
    let (entrypoint, cmd) = match &request.entrypoint {
        // A new entrypoint makes the image's command meaningless.
        Some(entrypoint) => (
            entrypoint.iter().filter(|s| !s.is_empty()).cloned().collect(),
            request.command.clone(),
        ),
        None if request.command.is_empty() => (image.entrypoint.clone(), image.cmd.clone()),
        None => (image.entrypoint.clone(), request.command.clone()),
    };
    if entrypoint.is_empty() && cmd.is_empty() {
        return Err(Error::NoCommand(name.to_string()));
    }
    let mut host = request.host.clone();
    if let NetworkMode::Named(asked) = &host.network
        && let Ok(found) = Networks::open(&reconcile::network_paths(paths)).and_then(|all| all.get(asked))
    {
        // It may have been named by its id.
        host.network = NetworkMode::Named(found.name);
    }
    let mut exposed: Vec<String> = image.exposed_ports.keys().cloned().collect();
    for text in &request.expose {
        exposed.extend(ports::expose(text)?);
    }
    exposed.extend(
        host.ports
            .iter()
            .map(|p| format!("{}/{}", p.container_port, p.protocol)),
    );
    exposed.sort();
    exposed.dedup();
    if host.publish_all {
        for port in exposed.iter().filter_map(|text| ports::publish(text)) {
            let published =
                |p: &PortMapping| (p.container_port, p.protocol) == (port.container_port, port.protocol);
            if !host.ports.iter().any(published) {
                host.ports.push(port);
            }
        }
    }
    if !host.ports.is_empty() && !matches!(host.network, NetworkMode::Bridge | NetworkMode::Named(_)) {
        warnings.push("published ports are discarded: the container has no network of its own".into());
        host.ports.clear();
    }
    image_volumes(&mut host.mounts, image)?;
    let seccomp = seccomp(&host)?;
    let asked = request.hostname.as_ref().filter(|name| !name.is_empty());
    let hostname = match (asked, &host.uts, &host.network) {
        (Some(name), UtsMode::Private, _) => name.clone(),
        (None, UtsMode::Private, NetworkMode::Host) => host_name(),
        (None, UtsMode::Private, NetworkMode::Container(other)) => {
            // Whose network it is, is whose name it has; one that is not there yet gives none.
            let shared = spec::namespaces::referenced(paths, other).and_then(|id| record::config(paths, &id));
            shared.map_or_else(|_| id.short().to_owned(), |config| config.hostname)
        }
        (None, UtsMode::Private, _) => id.short().to_owned(),
        (_, UtsMode::Host, _) => host_name(),
    };
    let mut labels: BTreeMap<String, String> = image
        .labels
        .iter()
        // CVE-2026-53488: labels that steer berth come from the user, never from an image.
        .filter(|(key, _)| !key.starts_with("berth.") && !key.starts_with("io.berth."))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    labels.extend(request.labels.clone());
    let user = match &request.user {
        Some(user) => user.clone(),
        None => image.user.parse()?,
    };
    let stop_signal = match (request.stop_signal, image.stop_signal.as_deref()) {
        (Some(signal), _) => signal,
        (None, Some(text)) if !text.is_empty() => text.parse()?,
        _ => Signal::TERM,
    };
    Ok(ContainerConfig {
        id: id.clone(),
        name,
        created: Timestamp::now(),
        image: origin,
        entrypoint,
        cmd,
        env: merge_env(&image.env, &request.env),
        labels,
        working_dir: request
            .working_dir
            .clone()
            .unwrap_or_else(|| image.working_dir.clone()),
        user,
        hostname,
        domainname: request.domainname.clone(),
        tty: request.tty,
        open_stdin: request.open_stdin,
        stdin_once: request.stdin_once,
        exposed_ports: exposed,
        stop_signal,
        stop_timeout: request
            .stop_timeout
            .or(image.stop_timeout.and_then(|s| i64::try_from(s).ok())),
        healthcheck: healthcheck(request, image)?,
        seccomp,
        host,
        networks: None,
    })
}

/// The image's `VOLUME`s become anonymous volumes, but for those the user mounts something on. The path goes through
/// the same check as a flag's, and is only ever a target (CVE-2022-23648).
fn image_volumes(mounts: &mut Vec<MountSpec>, image: &RunConfig) -> Result<()> {
    for path in image.volumes.keys() {
        let mut spec = crate::flags::parse_tmpfs(path.split(':').next().unwrap_or_default())?;
        spec.kind = MountKind::Volume {
            name: None,
            nocopy: false,
        };
        spec.propagation = Propagation::default();
        if !mounts.iter().any(|m| m.target == spec.target) {
            mounts.push(spec);
        }
    }
    Ok(())
}

fn seccomp(host: &HostConfig) -> Result<Seccomp> {
    let mut seccomp = if host.privileged {
        Seccomp::Unconfined
    } else {
        Seccomp::Default
    };
    for option in &host.security {
        match option {
            SecurityOpt::SeccompUnconfined => seccomp = Seccomp::Unconfined,
            SecurityOpt::SeccompDefault => seccomp = Seccomp::Default,
            SecurityOpt::SeccompFile(path) => {
                let text = std::fs::read_to_string(path).at("read", path)?;
                // Now, not at the first start, which may be another day's.
                spec::check_seccomp(&text, &spec::caps::effective(host)?).map_err(|why| Error::Invalid {
                    what: format!("seccomp profile {}", path.display()),
                    why,
                })?;
                seccomp = Seccomp::Profile(text);
            }
            SecurityOpt::Apparmor(profile) if profile != "unconfined" => {
                return Err(Error::Unsupported {
                    what: format!("apparmor profile {profile:?}"),
                    why: "berth loads no AppArmor profiles".into(),
                });
            }
            _ => {}
        }
    }
    Ok(seccomp)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The image's variables with the user's over them; a name without `=` takes the variable out. What is no variable in an image,
/// for want of a name or a value, is left out: no process can be given it.
pub(crate) fn merge_env(image: &[String], user: &[String]) -> Vec<String> {
    fn key(entry: &str) -> &str {
        entry.split('=').next().unwrap_or(entry)
    }
    let is_variable = |entry: &&String| entry.find('=').is_some_and(|at| at > 0);
    let mut env: Vec<String> = image.iter().filter(is_variable).cloned().collect();
    for entry in user {
        let place = env.iter().position(|old| key(old) == key(entry));
        match (place, entry.contains('=')) {
            (Some(i), true) => env[i] = entry.clone(),
            (Some(i), false) => drop(env.remove(i)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    env
}

fn healthcheck(request: &CreateRequest, image: &RunConfig) -> Result<Option<Healthcheck>> {
    if request.no_healthcheck {
        return Ok(None);
    }
    if let Some(user) = &request.healthcheck {
        user.check()?;
    }
    let nanos = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0).map(Duration::from_nanos);
    let base = image.healthcheck.as_ref().map(|h| Healthcheck {
        test: h.test.clone(),
        interval: nanos(h.interval),
        timeout: nanos(h.timeout),
        start_period: nanos(h.start_period),
        start_interval: nanos(h.start_interval),
        retries: u32::try_from(h.retries).ok(),
    });
    Ok(match (&request.healthcheck, base) {
        (None, base) => base,
        (Some(user), None) => Some(user.clone()),
        (Some(user), Some(base)) => Some(Healthcheck {
            test: if user.test.is_empty() {
                base.test
            } else {
                user.test.clone()
            },
            interval: user.interval.or(base.interval),
            timeout: user.timeout.or(base.timeout),
            start_period: user.start_period.or(base.start_period),
            start_interval: user.start_interval.or(base.start_interval),
            retries: user.retries.or(base.retries),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> ImageOrigin {
        ImageOrigin {
            name: "x".into(),
            id: "sha256:0".into(),
            layers: vec![],
        }
    }

    fn resolved(request: &CreateRequest, image: &RunConfig) -> Result<ContainerConfig> {
        let id = ContainerId::random().unwrap();
        resolve(
            request,
            origin(),
            image,
            &id,
            "name".parse().unwrap(),
            &mut Vec::new(),
            &Paths {
                root: "/nowhere".into(),
                state: "/nowhere".into(),
            },
        )
    }

    fn image() -> RunConfig {
        RunConfig {
            cmd: vec!["sh".into()],
            env: vec!["A=1".into(), "PATH=/bin".into()],
            ..RunConfig::default()
        }
    }

    #[test]
    fn a_new_entrypoint_drops_the_images_command() {
        let request = CreateRequest {
            entrypoint: Some(vec!["/e".into()]),
            ..CreateRequest::default()
        };
        assert_eq!(resolved(&request, &image()).unwrap().args(), ["/e"]);
        let cleared = CreateRequest {
            entrypoint: Some(vec![]),
            ..CreateRequest::default()
        };
        assert!(matches!(resolved(&cleared, &image()), Err(Error::NoCommand(_))));
    }

    #[test]
    fn env_is_merged_in_place() {
        assert_eq!(
            merge_env(
                &["A=1".into(), "odd".into(), "=odd".into(), "B=2".into()],
                &["B=3".into(), "A".into(), "C=".into()]
            ),
            ["B=3", "C="]
        );
    }

    #[test]
    fn labels_in_our_namespace_never_come_from_an_image() {
        let mut image = image();
        image.labels.insert("io.berth.trusted".into(), "yes".into());
        image.labels.insert("vendor".into(), "x".into());
        let config = resolved(&CreateRequest::default(), &image).unwrap();
        assert_eq!(config.labels.keys().collect::<Vec<_>>(), ["vendor"]);
    }

    #[test]
    fn image_volumes_are_targets_inside_and_nothing_else() {
        let mut image = image();
        image
            .volumes
            .insert("/etc/../../../root".into(), Default::default());
        assert!(resolved(&CreateRequest::default(), &image).is_err());
        image.volumes.clear();
        image
            .volumes
            .insert("/etc/shadow:/data".into(), Default::default());
        let config = resolved(&CreateRequest::default(), &image).unwrap();
        assert!(matches!(
            &config.host.mounts[0].kind,
            MountKind::Volume { name: None, .. }
        ));
    }
}
