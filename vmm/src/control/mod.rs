//! What the API does: one microVM from its first setting to its end.
//!
//! ```text
//!              InstanceStart              Paused
//! not started ───────────────► running ◄──────────► paused ─► snapshot
//!   settings grow                        Resumed      ▲
//!        └────────────────── snapshot/load ───────────┘
//! ```
//!
//! [`Status::allows`] says what can be asked for when; `settings.rs` does it before the start, `action.rs` after. Without a jail all of
//! it happens in one process; with one, `keeper/` has a controller for what comes before the start, and the machine's process for
//! the rest.

mod action;
pub(crate) mod files;
mod settings;
mod status;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use vmm_sys_util::eventfd::EventFd;

pub use status::{Refusal, Status};

use crate::api::{Command, Question, Request, Response};
use crate::boot::{self, Drives, Interfaces, Machine};
use crate::config::{Config, Settings};
use crate::devices::keyboard::Keyboard;
use crate::devices::serial::SerialPort;
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::endpoint::{self, Endpoint};
use crate::devices::virtio::slots::Slots;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::jail::{Beside, Jail};
use crate::keeper::Door;
use crate::logger;
use crate::metrics::{self, Metrics};
use crate::processors::{Processors, Shared};
use crate::seccomp::Seccomp;
use crate::shares::Shares;
use crate::snapshot::Loaded;
use crate::socket_file::SocketFile;
use crate::vm::Vm;
use files::{Inside, Outside};

/// Obeys the API.
pub struct Controller {
    id: String,
    settings: Settings,
    status: Status,
    seccomp: Seccomp,
    jail: Option<Jail>,
    metrics: Arc<Metrics>,
    writer: metrics::Writer,
    running: Option<Running>,
    /// Of a machine just started, until the event loop fetches them.
    attached: Option<Attached>,
    /// Written to when the machine ends.
    ending: EventFd,
}

/// What a started machine can be reached by.
struct Running {
    processors: Processors,
    shares: Shares,
    vm: Arc<Vm>,
    slots: Slots,
    serial: Arc<Mutex<SerialPort>>,
    keyboard: Arc<Mutex<Keyboard>>,
    drives: Drives,
    interfaces: Interfaces,
    balloon: Option<Arc<endpoint::Shared<Balloon>>>,
    /// Given up with this, whatever the processors' threads still hold.
    _sockets: Vec<SocketFile>,
}

/// What the event loop has to serve for a started machine.
pub(crate) struct Attached {
    pub(crate) serial: Arc<Mutex<SerialPort>>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// How a machine is to begin.
pub(crate) enum Plan {
    /// As configured.
    Boot(Box<Config>),
    /// From a snapshot.
    Load(Box<Loaded>),
}

impl Plan {
    /// What is open for it.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Plan::Boot(_) => None,
            Plan::Load(loaded) => Some(loaded.memory().as_raw_fd()),
        }
    }

    /// A snapshot's settings.
    pub(crate) fn settings(&self) -> Option<Settings> {
        match self {
            Plan::Boot(_) => None,
            Plan::Load(loaded) => Some(loaded.settings.clone()),
        }
    }

    /// Where it is going to listen for vsock.
    pub(crate) fn socket(&self) -> Option<&Path> {
        let vsock = match self {
            Plan::Boot(config) => &config.vsock,
            Plan::Load(loaded) => &loaded.settings.vsock,
        };
        vsock.as_ref().map(|vsock| vsock.uds_path.as_path())
    }
}

/// How a request is fulfilled in this process.
enum Means<'a> {
    /// With the host's files, and the machine here.
    All,
    /// With files that came along.
    Files(Inside),
    /// By somebody who makes the machine elsewhere.
    Starter(&'a mut Starter<'a>),
}

/// What a process does when its machine is built.
pub(crate) type Built<'a> = &'a mut dyn FnMut() -> Result<()>;

/// Makes a machine, or says why not.
pub(crate) type Starter<'a> = dyn FnMut(&mut Controller, Plan) -> Result<()> + 'a;

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
    /// A microVM called `id` that is not started. Once it is, the process is in `jail`, and this thread and those of the
    /// processors are confined as `seccomp` says.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when the process has no descriptor left.
    pub fn new(
        id: String,
        metrics: Arc<Metrics>,
        seccomp: Seccomp,
        jail: Option<Jail>,
    ) -> Result<Controller> {
        let ending =
            EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).map_err(|source| Error::Events {
                operation: "create an event",
                source,
            })?;
        Ok(Controller {
            id,
            settings: Settings::default(),
            status: Status::NotStarted,
            seccomp,
            jail,
            writer: metrics::Writer::new(metrics.clone()),
            metrics,
            running: None,
            attached: None,
            ending,
        })
    }

    /// Does what a request asks for, and says how it went. Blocks as long as that takes: starting a machine reads its
    /// kernel.
    pub fn handle(&mut self, request: &Request) -> Response {
        self.answer(request, Means::All)
    }

    /// As [`Controller::handle`], for a process that can open nothing.
    pub(crate) fn handle_with(&mut self, request: &Request, files: Inside) -> Response {
        self.answer(request, Means::Files(files))
    }

    /// As [`Controller::handle`], for a process that is none of a machine's.
    pub(crate) fn handle_beside<'a>(&mut self, request: &Request, starter: &'a mut Starter<'a>) -> Response {
        self.answer(request, Means::Starter(starter))
    }

    fn answer(&mut self, request: &Request, means: Means<'_>) -> Response {
        log::info!("the API received {}", described(request));
        let response = self.obey(request, means).unwrap_or_else(|refusal| {
            let text = refusal.to_string();
            log::error!("it was refused: {text:?}");
            Response::fault(&text)
        });
        let failed = response.is_fault();
        self.metrics.request(&request.method, &request.path, failed);
        response
    }

    fn obey(&mut self, request: &Request, means: Means<'_>) -> Result<Response, Refusal> {
        let command = Command::of(request)?;
        self.status.allows(&command)?;
        let deprecated = command.is_deprecated();
        if deprecated {
            log::warn!("{} names something that is deprecated", described(request));
            self.metrics.deprecated_api.deprecated_http_api_calls.inc();
        }
        let response = match command {
            Command::Tell(question) => self.tell(question)?,
            Command::Set(setting) => {
                self.set(setting)?;
                Response::done()
            }
            Command::Start => {
                let plan = self.plan()?;
                self.make(plan, means)?;
                Response::done()
            }
            Command::LoadSnapshot(load) => {
                if self.settings.of_machine() != Settings::default() {
                    return Err(Refusal::Configured);
                }
                let plan = Plan::Load(Box::new(Loaded::read(load)?));
                self.make(plan, means)?;
                Response::done()
            }
            Command::Act(action) => match means {
                Means::Files(files) => self.act(action, files)?,
                Means::All | Means::Starter(_) => {
                    let outside = Outside::open(&action, &self.settings)?;
                    let response = self.act(action, Inside::copied(&outside)?)?;
                    outside.finish()?;
                    response
                }
            },
        };
        Ok(response.deprecated(deprecated))
    }

    fn tell(&self, question: Question) -> Result<Response, Refusal> {
        Ok(match question {
            Question::Instance => Response::json(&Instance {
                id: &self.id,
                state: self.status,
                vmm_version: VERSION,
                app_name: "berth-vmm",
            }),
            Question::Version => Response::json(&Version {
                firecracker_version: VERSION,
            }),
            Question::Config => Response::json(&self.settings),
            Question::Machine => Response::json(&self.settings.machine_config),
            Question::Balloon => match &self.settings.balloon {
                Some(balloon) => Response::json(balloon),
                None => return Err(Refusal::NoDevice("balloon")),
            },
        })
    }

    /// Takes what a configuration file describes.
    ///
    /// # Errors
    ///
    /// Those of [`Settings::read`], and of opening log and metrics.
    pub fn configure(&mut self, path: &Path) -> Result<()> {
        let settings = Settings::read(path)?;
        if let Some(change) = &settings.logger {
            logger::update(change)?;
        }
        if let Some(metrics) = &settings.metrics {
            self.writer.open(metrics)?;
        }
        self.settings = settings;
        Ok(())
    }

    /// Starts the machine in this process.
    ///
    /// # Errors
    ///
    /// Any of building it.
    pub fn start(&mut self) -> Result<()> {
        let plan = self.plan()?;
        self.begin(plan, None, &mut || Ok(()))
    }

    /// A machine as it is configured.
    ///
    /// # Errors
    ///
    /// Those of [`Settings::complete`].
    pub(crate) fn plan(&self) -> Result<Plan> {
        Ok(Plan::Boot(Box::new(self.settings.complete()?)))
    }

    fn make(&mut self, plan: Plan, means: Means<'_>) -> Result<()> {
        match means {
            Means::Starter(start) => start(self, plan),
            Means::All | Means::Files(_) => self.begin(plan, None, &mut || Ok(())),
        }
    }

    /// Builds the machine and lets it run, or stand when a snapshot's is to. One that cannot be built leaves the configuration as it
    /// is, to be put right. In a jail, connections to who listens for the guest come by `door`. `built` is called between: what follows
    /// confines the process.
    ///
    /// # Errors
    ///
    /// Any of building it, or of confining the process.
    pub(crate) fn begin(&mut self, plan: Plan, door: Option<Door>, built: Built<'_>) -> Result<()> {
        let beside = self.jail.as_ref().map(Jail::begin).transpose()?;
        let console = Box::new(io::stdout());
        match plan {
            Plan::Boot(config) => {
                let machine = boot::boot(&config, door, console)?;
                built()?;
                self.attach(machine, beside)?.processors.resume();
                self.status = Status::Running;
                log::info!("the microVM runs");
            }
            Plan::Load(loaded) => {
                let (begin, resumes) = (loaded.begin, loaded.resumes());
                let (machine, settings) = loaded.build(door, console)?;
                built()?;
                let running = self.attach(machine, beside)?;
                if resumes {
                    running.processors.resume();
                }
                self.status = if resumes { Status::Running } else { Status::Paused };
                self.adopt(settings);
                self.metrics.latencies_us.load_snapshot.since(begin);
                log::info!("the microVM goes on from a snapshot");
            }
        }
        Ok(())
    }

    /// Takes a machine that was built, and confines all threads. Its processors stand.
    fn attach(&mut self, machine: Machine, beside: Option<Beside>) -> Result<&Running> {
        let Machine {
            vcpus,
            ports,
            mmio,
            endpoints,
            shares,
            slots,
            sockets,
            drives,
            interfaces,
            balloon,
            serial,
            keyboard,
            vm,
        } = machine;
        let filters = self.seccomp.filters(self.jail.is_some());
        let shared = Shared {
            ports,
            mmio,
            metrics: self.metrics.clone(),
            _vm: vm.clone(),
        };
        let mut sockets = sockets;
        if let (Some(jail), Some(beside)) = (&self.jail, beside) {
            jail.leave_host(beside)?;
            // Their paths mean something else from here on; who is outside removes them.
            sockets.drain(..).for_each(SocketFile::leave);
        }
        let shares = Shares::start(shares, self.seccomp, self.jail.is_some())?;
        if let Some(jail) = &self.jail {
            jail.become_nobody()?;
        }
        let processors = Processors::start(vcpus, shared, &self.ending, filters, self.jail.is_some())?;
        self.attached = Some(Attached {
            serial: serial.clone(),
            endpoints,
        });
        Ok(self.running.insert(Running {
            processors,
            shares,
            vm,
            slots,
            serial,
            keyboard,
            drives,
            interfaces,
            balloon,
            _sockets: sockets,
        }))
    }

    /// Where it is in its life.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Counts a request that another process answers.
    pub(crate) fn has_fulfilled(&self, request: &Request) {
        self.metrics.request(&request.method, &request.path, false);
    }

    /// The controller, to go on in another process; what stays is of no use.
    pub(crate) fn moved_out(&mut self) -> Result<Controller> {
        let other = Controller::new(String::new(), self.metrics.clone(), self.seccomp, None)?;
        Ok(std::mem::replace(self, other))
    }

    /// What is open for it in a process that has no machine yet.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.writer
            .descriptor()
            .into_iter()
            .chain([self.ending.as_raw_fd()])
    }

    /// The jail of the machine's process.
    pub(crate) fn jail(&self) -> Option<&Jail> {
        self.jail.as_ref()
    }

    /// The configuration so far; of a machine, once it has begun here.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes the configuration of a snapshot's machine.
    pub(crate) fn adopt(&mut self, mut settings: Settings) {
        settings.take_process(&self.settings);
        self.settings = settings;
    }

    /// What a machine needs of the event loop that was started since the last time.
    pub(crate) fn take_attached(&mut self) -> Option<Attached> {
        self.attached.take()
    }

    /// Readable when the machine may have ended.
    pub(crate) fn ending(&self) -> &EventFd {
        &self.ending
    }

    /// How the machine ended, if it has. Then the counters are written for the last time.
    pub(crate) fn ended(&self) -> Option<Exit> {
        let running = self.running.as_ref()?;
        let exit = running.processors.exit()?;
        log::info!("the microVM has ended: {exit:?}");
        if running.processors.have_ended() {
            running.vm.give_up_memory();
        }
        self.flush_metrics();
        Some(exit)
    }

    /// Writes the counters, because it is time to.
    pub(crate) fn flush_metrics(&self) {
        if let Err(e) = self.writer.flush() {
            log::error!("{:?}", e.told());
        }
    }
}

/// A request for the log, in one line. Processor templates are long, and there only for those who look for a fault.
fn described(request: &Request) -> String {
    let Request { method, path, body } = request;
    let body = String::from_utf8_lossy(body);
    match path.as_str() {
        _ if body.is_empty() => format!("{method:?} {path:?}"),
        "/cpu-config" if !log::log_enabled!(log::Level::Debug) => {
            format!("{method:?} {path:?} with a template")
        }
        _ => format!("{method:?} {path:?} with body {body:?}"),
    }
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
        controller
            .obey(&request, Means::All)
            .map_err(|refusal| refusal.to_string())
    }

    fn controller() -> Controller {
        Controller::new("one".into(), Arc::default(), Seccomp::Off, None).unwrap()
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
                "drive d: /nowhere: No such file or directory",
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
                r#"{"drive_id": "d", "path_on_host": "/"}"#,
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
