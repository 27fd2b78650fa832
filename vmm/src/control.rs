//! What the API does: one microVM from its first setting to its end.
//!
//! ```text
//!              InstanceStart              Paused
//! not started ───────────────► running ◄──────────► paused
//!   settings grow                        Resumed
//! ```

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use crate::api::{Command, Fault, Request, Response};
use crate::boot::{self, Machine};
use crate::config::{CpuTemplate, MachineConfig, Settings};
use crate::error::{Error, Result};
use crate::loader;

/// Where a microVM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Status {
    /// It is being configured.
    #[serde(rename = "Not started")]
    NotStarted,
    /// Its processors run.
    Running,
    /// Its processors stand.
    Paused,
}

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is none.
    #[error(transparent)]
    Request(#[from] Fault),
    /// It needs a machine.
    #[error("The requested operation is not supported before starting the microVM.")]
    Early,
    /// It is about the machine's configuration, and there is a machine.
    #[error("The requested operation is not supported after starting the microVM.")]
    Late,
    /// There is no such device.
    #[error("No {0} device found.")]
    NoDevice(&'static str),
    /// It was tried.
    #[error("{}", .0.told())]
    Failed(#[from] Error),
}

impl Status {
    /// Whether a command can be obeyed now.
    ///
    /// # Errors
    ///
    /// [`Refusal::Early`] and [`Refusal::Late`].
    pub fn allows(self, command: &Command) -> Result<(), Refusal> {
        use Command as C;
        let started = self != Status::NotStarted;
        match command {
            C::Describe | C::Version | C::GetConfig | C::GetMachine | C::GetBalloon => Ok(()),
            C::PutBootSource(_)
            | C::PutMachine(_)
            | C::PatchMachine(_)
            | C::PutCpu(_)
            | C::PutDrive(_)
            | C::PutNetworkInterface(_)
            | C::PutVsock(_)
            | C::PutEntropy(_)
            | C::PutBalloon(_)
            | C::PutLogger(_)
            | C::PutMetrics(_)
            | C::LoadSnapshot(_)
            | C::Start => {
                if started {
                    Err(Refusal::Late)
                } else {
                    Ok(())
                }
            }
            C::GetBalloonStatistics
            | C::PatchDrive(_)
            | C::PatchNetworkInterface(_)
            | C::PatchBalloon(_)
            | C::PatchBalloonStatistics(_)
            | C::FlushMetrics
            | C::SendCtrlAltDel
            | C::Pause
            | C::Resume
            | C::CreateSnapshot(_) => {
                if started {
                    Ok(())
                } else {
                    Err(Refusal::Early)
                }
            }
        }
    }
}

/// Obeys the API.
pub struct Controller {
    id: String,
    settings: Settings,
    status: Status,
    /// Built, and not yet fetched by who lets it run.
    booted: Option<Machine>,
}

/// What `GET /` tells.
#[derive(Serialize)]
struct Instance<'a> {
    id: &'a str,
    state: Status,
    vmm_version: &'static str,
    app_name: &'static str,
}

/// What `GET /version` tells; clients of Firecracker look for this key.
#[derive(Serialize)]
struct Version {
    firecracker_version: &'static str,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Controller {
    /// A microVM called `id` that is not started; `settings` are what the configuration file said.
    #[must_use]
    pub fn new(id: String, settings: Settings) -> Controller {
        Controller {
            id,
            settings,
            status: Status::NotStarted,
            booted: None,
        }
    }

    /// Does what a request asks for, and says how it went. Blocks as long as that takes: starting a machine reads its
    /// kernel.
    pub fn handle(&mut self, request: &Request) -> Response {
        match self.obey(request) {
            Ok(response) => response,
            Err(refusal) => Response::fault(&refusal.to_string()),
        }
    }

    /// The machine that was started, once.
    pub fn take_booted(&mut self) -> Option<Machine> {
        self.booted.take()
    }

    fn obey(&mut self, request: &Request) -> Result<Response, Refusal> {
        let command = Command::of(request)?;
        self.status.allows(&command)?;
        let deprecated = command.is_deprecated();
        let response = match command {
            Command::Describe => Response::json(&Instance {
                id: &self.id,
                state: self.status,
                vmm_version: VERSION,
                app_name: "berth-vmm",
            }),
            Command::Version => Response::json(&Version {
                firecracker_version: VERSION,
            }),
            Command::GetConfig => Response::json(&self.settings),
            Command::GetMachine => Response::json(&self.settings.machine_config),
            Command::GetBalloon => match &self.settings.balloon {
                Some(balloon) => Response::json(balloon),
                None => return Err(Refusal::NoDevice("balloon")),
            },
            Command::Start => self.start()?,
            setting @ (Command::PutBootSource(_)
            | Command::PutMachine(_)
            | Command::PatchMachine(_)
            | Command::PutCpu(_)
            | Command::PutDrive(_)
            | Command::PutNetworkInterface(_)
            | Command::PutVsock(_)
            | Command::PutEntropy(_)
            | Command::PutBalloon(_)
            | Command::PutLogger(_)
            | Command::PutMetrics(_)) => self.set(setting)?,
            Command::LoadSnapshot(_) => return Err(absent("snapshot/load")),
            Command::CreateSnapshot(_) => return Err(absent("snapshot/create")),
            Command::GetBalloonStatistics => return Err(absent("balloon/statistics")),
            Command::PatchBalloon(_) | Command::PatchBalloonStatistics(_) => return Err(absent("balloon")),
            Command::PatchDrive(_) => return Err(absent("drives")),
            Command::PatchNetworkInterface(_) => return Err(absent("network-interfaces")),
            Command::FlushMetrics => return Err(absent("metrics")),
            Command::SendCtrlAltDel => return Err(absent("SendCtrlAltDel")),
            Command::Pause | Command::Resume => return Err(absent("vm")),
        };
        Ok(response.deprecated(deprecated))
    }

    /// Takes part of the configuration.
    fn set(&mut self, command: Command) -> Result<Response, Refusal> {
        let settings = &mut self.settings;
        match command {
            Command::PutBootSource(boot) => {
                let cannot = |source: io::Error| loader::Error::Read(source);
                readable(&boot.kernel_image_path).map_err(|e| Error::Kernel {
                    path: boot.kernel_image_path.clone(),
                    source: cannot(e),
                })?;
                if let Some(path) = &boot.initrd_path {
                    readable(path).map_err(|e| Error::Initrd {
                        path: path.clone(),
                        source: cannot(e),
                    })?;
                }
                settings.change(|new| new.boot_source = Some(boot))
            }
            Command::PutMachine(machine) => change_machine(settings, machine.cpu_template, machine),
            Command::PatchMachine(fields) => {
                let machine = settings.machine_config.changed(&fields).map_err(Fault::Body)?;
                let template = machine
                    .cpu_template
                    .filter(|_| fields.contains_key("cpu_template"));
                change_machine(settings, template, machine)
            }
            // The last of the two that names a template wins.
            Command::PutCpu(cpu) => settings.change(|new| {
                new.cpu_config = Some(cpu);
                new.machine_config.cpu_template = None;
            }),
            Command::PutDrive(drive) => {
                readable(&drive.path_on_host).map_err(|source| Error::File {
                    operation: "open",
                    path: drive.path_on_host.clone(),
                    source,
                })?;
                settings.put_drive(drive)
            }
            Command::PutNetworkInterface(interface) => settings.put_network_interface(interface),
            Command::PutVsock(vsock) => settings.change(|new| new.vsock = Some(vsock)),
            Command::PutEntropy(entropy) => settings.change(|new| new.entropy = Some(entropy)),
            Command::PutBalloon(balloon) => settings.change(|new| new.balloon = Some(balloon)),
            Command::PutLogger(logger) => settings.change(|new| new.logger = Some(logger)),
            Command::PutMetrics(metrics) => settings.change(|new| new.metrics = Some(metrics)),
            _ => unreachable!("only what sets something comes here"),
        }?;
        Ok(Response::done())
    }

    /// Builds the machine. One that cannot be built leaves the configuration as it is, to be put right.
    fn start(&mut self) -> Result<Response, Refusal> {
        let config = self.settings.complete()?;
        self.booted = Some(boot::boot(&config, Box::new(io::stdout()))?);
        self.status = Status::Running;
        Ok(Response::done())
    }
}

fn change_machine(
    settings: &mut Settings,
    template: Option<CpuTemplate>,
    machine: MachineConfig,
) -> Result<()> {
    settings.change(|new| {
        new.machine_config = machine;
        if template.is_some() {
            new.cpu_config = None;
        }
    })
}

fn absent(what: &'static str) -> Refusal {
    Refusal::Failed(Error::Unsupported {
        what,
        why: "this monitor does not have it yet",
    })
}

/// Tells early of a file that cannot be read; it is opened again at the start. Does not wait for somebody to write to a pipe.
fn readable(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty()).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(controller: &mut Controller, method: &str, path: &str, body: &str) -> Result<Response, String> {
        let request = Request {
            method: method.into(),
            path: path.into(),
            body: body.into(),
        };
        controller.obey(&request).map_err(|refusal| refusal.to_string())
    }

    fn controller() -> Controller {
        Controller::new("one".into(), Settings::default())
    }

    #[test]
    fn a_machine_is_configured_bit_by_bit() {
        let mut controller = controller();
        let here = tempfile::NamedTempFile::new().unwrap();
        let path = here.path().display();
        for (method, at, body) in [
            (
                "PUT",
                "/boot-source",
                format!(r#"{{"kernel_image_path": "{path}"}}"#),
            ),
            (
                "PUT",
                "/machine-config",
                r#"{"vcpu_count": 2, "mem_size_mib": 256}"#.into(),
            ),
            ("PATCH", "/machine-config", r#"{"vcpu_count": 4}"#.into()),
            (
                "PUT",
                "/drives/d",
                format!(r#"{{"drive_id": "d", "path_on_host": "{path}", "is_root_device": true}}"#),
            ),
            ("PUT", "/vsock", r#"{"guest_cid": 3, "uds_path": "/v"}"#.into()),
        ] {
            assert_eq!(
                ask(&mut controller, method, at, &body),
                Ok(Response::done()),
                "{at}"
            );
        }
        let settings = controller.settings.clone();
        assert_eq!(
            (
                settings.machine_config.vcpu_count,
                settings.machine_config.mem_size_mib
            ),
            (4, 256)
        );
        assert_eq!(
            ask(&mut controller, "GET", "/vm/config", ""),
            Ok(Response::json(&settings))
        );
        let described = ask(&mut controller, "GET", "/", "").unwrap();
        let described: serde_json::Value = serde_json::from_str(described.body().unwrap()).unwrap();
        let expected = serde_json::json!({
            "id": "one", "state": "Not started", "vmm_version": VERSION, "app_name": "berth-vmm",
        });
        assert_eq!(described, expected);
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let mut controller = controller();
        let before = controller.settings.clone();
        for (method, path, body, words) in [
            (
                "PUT",
                "/boot-source",
                r#"{"kernel_image_path": "/nowhere"}"#,
                "No such file or directory",
            ),
            (
                "PUT",
                "/drives/d",
                r#"{"drive_id": "d", "path_on_host": "/nowhere", "is_root_device": true}"#,
                "cannot open /nowhere: No such file or directory",
            ),
            (
                "PUT",
                "/machine-config",
                r#"{"vcpu_count": 0, "mem_size_mib": 1}"#,
                "vcpu_count",
            ),
            (
                "PATCH",
                "/machine-config",
                r#"{"cpus": 1}"#,
                "unknown field `cpus`",
            ),
            ("GET", "/balloon", "", "No balloon device found."),
            (
                "PUT",
                "/actions",
                r#"{"action_type": "InstanceStart"}"#,
                "boot-source",
            ),
            (
                "PUT",
                "/actions",
                r#"{"action_type": "FlushMetrics"}"#,
                "not supported before starting the microVM",
            ),
            (
                "PATCH",
                "/vm",
                r#"{"state": "Paused"}"#,
                "not supported before starting the microVM",
            ),
            (
                "PATCH",
                "/drives/d",
                r#"{"drive_id": "d"}"#,
                "not supported before starting the microVM",
            ),
        ] {
            let error = ask(&mut controller, method, path, body).unwrap_err();
            assert!(error.contains(words), "{method} {path}: {error}");
        }
        assert_eq!(controller.settings, before);
        controller.status = Status::Running;
        let late = r#"{"vcpu_count": 1, "mem_size_mib": 1}"#;
        let error = ask(&mut controller, "PUT", "/machine-config", late).unwrap_err();
        assert_eq!(
            error,
            "The requested operation is not supported after starting the microVM."
        );
    }

    #[test]
    fn the_last_template_wins_and_is_warned_of() {
        let mut controller = controller();
        ask(&mut controller, "PUT", "/cpu-config", "{}").unwrap();
        let old = ask(
            &mut controller,
            "PATCH",
            "/machine-config",
            r#"{"cpu_template": "None"}"#,
        );
        assert_eq!(old, Ok(Response::done().deprecated(true)));
        assert_eq!(controller.settings.cpu_config, None);
        let plain = ask(
            &mut controller,
            "PATCH",
            "/machine-config",
            r#"{"vcpu_count": 2}"#,
        );
        assert_eq!(plain, Ok(Response::done()));
        ask(&mut controller, "PUT", "/cpu-config", "{}").unwrap();
        assert_eq!(controller.settings.machine_config.cpu_template, None);
    }
}
