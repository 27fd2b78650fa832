//! What a client wants: a request's method, path and body as one value.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Value};

use super::http::Request;
use crate::config::{
    Balloon, BalloonChange, BalloonStatisticsChange, BootSource, CpuConfig, Drive, DriveChange, Entropy, Id,
    Logger, MachineConfig, Metrics, Named, NetworkInterface, NetworkInterfaceChange, NoId, SnapshotCreate,
    SnapshotLoad, Vsock,
};

/// Something the API can be asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// To tell something, at any time.
    Tell(Question),
    /// To take a part of the configuration, before the start.
    Set(Setting),
    /// To start the machine as configured.
    Start,
    /// To make the machine from a snapshot instead.
    LoadSnapshot(SnapshotLoad),
    /// To do something to the machine, after the start.
    Act(Action),
}

/// What can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the paths they are named after
pub enum Question {
    Instance,
    Version,
    Config,
    Machine,
    Balloon,
}

/// A part of the configuration.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the paths they are named after
pub enum Setting {
    BootSource(BootSource),
    Machine(MachineConfig),
    /// Some fields of a [`MachineConfig`].
    MachineFields(Map<String, Value>),
    Cpu(CpuConfig),
    Drive(Drive),
    NetworkInterface(NetworkInterface),
    Vsock(Vsock),
    Entropy(Entropy),
    Balloon(Balloon),
    Logger(Logger),
    Metrics(Metrics),
}

/// What can be done to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let its processors stand.
    Pause,
    /// Let them go on.
    Resume,
    /// Press the three keys.
    SendCtrlAltDel,
    /// Press the power button.
    PressPowerButton,
    /// Write the counters.
    FlushMetrics,
    /// Give a disk other contents or limits.
    ChangeDrive(DriveChange),
    /// Give an interface other limits.
    ChangeNetworkInterface(NetworkInterfaceChange),
    /// Give the balloon another size.
    ChangeBalloon(BalloonChange),
    /// Ask the guest for statistics more or less often.
    ChangeBalloonStatistics(BalloonStatisticsChange),
    /// Tell the guest's statistics.
    TellBalloonStatistics,
    /// Write its state.
    CreateSnapshot(SnapshotCreate),
}

/// Why a request is refused, in Firecracker's words where it has some: clients look for them.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing of this name, or nothing that can be done to it.
    #[error("Invalid request method and/or path: {method} {path}.")]
    Path {
        /// As the client wrote it.
        method: String,
        /// Without the first slash.
        path: String,
    },
    /// The body is not what it should be.
    #[error("An error occurred when deserializing the json body of a request: {0}.")]
    Body(#[from] serde_json::Error),
    /// There is none.
    #[error("Empty {0} request.")]
    NoBody(&'static str),
    /// There is one.
    #[error("GET request cannot have a body.")]
    BodyOfGet,
    /// The path names no device.
    #[error(transparent)]
    Id(#[from] NoId),
    /// The path names another device than the body.
    #[error("The id from the path does not match the id from the body!")]
    OtherId,
    /// Something of Firecracker's that this monitor does not do.
    #[error("not supported: {what}: {why}")]
    Unsupported {
        /// As the path names it.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionBody {
    action_type: ActionType,
}

#[derive(Deserialize)]
enum ActionType {
    FlushMetrics,
    InstanceStart,
    SendCtrlAltDel,
    /// Ours: Firecracker has no such button.
    PressPowerButton,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VmBody {
    state: VmState,
}

#[derive(Deserialize)]
enum VmState {
    Paused,
    Resumed,
}

impl Command {
    /// What a request asks for.
    ///
    /// # Errors
    ///
    /// Any [`Fault`].
    pub fn of(request: &Request) -> Result<Command, Fault> {
        let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        match request.method.as_str() {
            "GET" if !request.body.is_empty() => Err(Fault::BodyOfGet),
            "GET" => get(&path),
            "PUT" if request.body.is_empty() => Err(Fault::NoBody("PUT")),
            "PUT" => put(&path, &request.body),
            "PATCH" if request.body.is_empty() => Err(Fault::NoBody("PATCH")),
            "PATCH" => patch(&path, &request.body),
            _ => Ok(None),
        }?
        .ok_or_else(|| Fault::Path {
            method: request.method.clone(),
            path: path.join("/"),
        })
    }

    /// Whether it names something that Firecracker is to give up.
    #[must_use]
    pub fn is_deprecated(&self) -> bool {
        match self {
            Command::Set(Setting::Machine(machine)) => machine.cpu_template.is_some(),
            Command::Set(Setting::MachineFields(fields)) => fields.contains_key("cpu_template"),
            Command::Set(Setting::Vsock(vsock)) => vsock.vsock_id.is_some(),
            Command::LoadSnapshot(load) => load.mem_file_path.is_some() || load.enable_diff_snapshots,
            _ => false,
        }
    }
}

fn get(path: &[&str]) -> Result<Option<Command>, Fault> {
    Ok(Some(match path {
        [""] => Command::Tell(Question::Instance),
        ["version"] => Command::Tell(Question::Version),
        ["vm", "config"] => Command::Tell(Question::Config),
        ["machine-config"] => Command::Tell(Question::Machine),
        ["balloon"] => Command::Tell(Question::Balloon),
        ["balloon", "statistics"] => Command::Act(Action::TellBalloonStatistics),
        _ => return absent(path).map(|()| None),
    }))
}

fn put(path: &[&str], body: &[u8]) -> Result<Option<Command>, Fault> {
    Ok(Some(Command::Set(match path {
        ["boot-source"] => Setting::BootSource(read(body)?),
        ["machine-config"] => Setting::Machine(read(body)?),
        ["cpu-config"] => Setting::Cpu(read(body)?),
        ["drives", id @ ..] => Setting::Drive(named(id, body)?),
        ["network-interfaces", id @ ..] => Setting::NetworkInterface(named(id, body)?),
        ["vsock"] => Setting::Vsock(read(body)?),
        ["entropy"] => Setting::Entropy(read(body)?),
        ["balloon"] => Setting::Balloon(read(body)?),
        ["logger"] => Setting::Logger(read(body)?),
        ["metrics"] => Setting::Metrics(read(body)?),
        ["actions"] => {
            return Ok(Some(match read::<ActionBody>(body)?.action_type {
                ActionType::InstanceStart => Command::Start,
                ActionType::FlushMetrics => Command::Act(Action::FlushMetrics),
                ActionType::SendCtrlAltDel => Command::Act(Action::SendCtrlAltDel),
                ActionType::PressPowerButton => Command::Act(Action::PressPowerButton),
            }));
        }
        ["snapshot", "create"] => return Ok(Some(Command::Act(Action::CreateSnapshot(read(body)?)))),
        ["snapshot", "load"] => {
            let load: SnapshotLoad = read(body)?;
            load.memory().map_err(serde_json::Error::custom)?;
            return Ok(Some(Command::LoadSnapshot(load)));
        }
        _ => return absent(path).map(|()| None),
    })))
}

fn patch(path: &[&str], body: &[u8]) -> Result<Option<Command>, Fault> {
    Ok(Some(Command::Act(match path {
        ["machine-config"] => {
            let fields: Map<String, Value> = read(body)?;
            if fields.is_empty() {
                return Err(Fault::NoBody("PATCH"));
            }
            return Ok(Some(Command::Set(Setting::MachineFields(fields))));
        }
        ["drives", id @ ..] => {
            let change: DriveChange = named(id, body)?;
            if change.path_on_host.is_none() && change.rate_limiter.is_none() {
                return Err(Fault::NoBody("PATCH"));
            }
            Action::ChangeDrive(change)
        }
        ["network-interfaces", id @ ..] => Action::ChangeNetworkInterface(named(id, body)?),
        ["balloon"] => Action::ChangeBalloon(read(body)?),
        ["balloon", "statistics"] => Action::ChangeBalloonStatistics(read(body)?),
        ["vm"] => match read::<VmBody>(body)?.state {
            VmState::Paused => Action::Pause,
            VmState::Resumed => Action::Resume,
        },
        _ => return absent(path).map(|()| None),
    })))
}

/// Paths of Firecracker's that are refused by name.
fn absent(path: &[&str]) -> Result<(), Fault> {
    let what = match path {
        ["mmds", ..] => "mmds",
        ["pmem", ..] => "pmem",
        ["serial"] => "serial",
        ["hotplug", "memory"] => "hotplug/memory",
        ["balloon", "hinting", ..] => "balloon/hinting",
        _ => return Ok(()),
    };
    let why = "this monitor does not have it";
    Err(Fault::Unsupported { what, why })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    Ok(serde_json::from_slice(body)?)
}

/// A body whose device the path names too.
fn named<T: DeserializeOwned + Named>(path: &[&str], body: &[u8]) -> Result<T, Fault> {
    let [name] = path else {
        return Err(if path.is_empty() {
            NoId::Empty
        } else {
            NoId::Character
        }
        .into());
    };
    let name = Id::try_from((*name).to_owned())?;
    let thing: T = read(body)?;
    if *thing.id() == name {
        Ok(thing)
    } else {
        Err(Fault::OtherId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(method: &str, path: &str, body: &str) -> Result<Command, String> {
        Command::of(&Request {
            method: method.into(),
            path: path.into(),
            body: body.into(),
        })
        .map_err(|e| e.to_string())
    }

    const DRIVE: &str = r#"{"drive_id": "a", "path_on_host": "/a", "is_root_device": false}"#;
    const INTERFACE: &str = r#"{"iface_id": "e", "host_dev_name": "tap0"}"#;
    const SNAPSHOT: &str = r#"{"snapshot_path": "/s", "mem_file_path": "/m"}"#;

    #[test]
    fn every_path_of_the_api_is_known() {
        for (method, path, body) in [
            ("GET", "/", ""),
            ("GET", "/version", ""),
            ("GET", "/vm/config", ""),
            ("GET", "/machine-config", ""),
            ("GET", "/balloon", ""),
            ("GET", "/balloon/statistics", ""),
            ("PUT", "/boot-source", r#"{"kernel_image_path": "/k"}"#),
            (
                "PUT",
                "/machine-config",
                r#"{"vcpu_count": 1, "mem_size_mib": 1}"#,
            ),
            ("PATCH", "/machine-config", r#"{"vcpu_count": 1}"#),
            ("PUT", "/cpu-config", "{}"),
            ("PUT", "/drives/a", DRIVE),
            ("PATCH", "/drives/a", r#"{"drive_id": "a", "path_on_host": "/b"}"#),
            ("PUT", "/network-interfaces/e", INTERFACE),
            ("PATCH", "/network-interfaces/e", r#"{"iface_id": "e"}"#),
            ("PUT", "/vsock", r#"{"guest_cid": 3, "uds_path": "/v"}"#),
            ("PUT", "/entropy", "{}"),
            ("PUT", "/balloon", r#"{"amount_mib": 1, "deflate_on_oom": true}"#),
            ("PATCH", "/balloon", r#"{"amount_mib": 1}"#),
            (
                "PATCH",
                "/balloon/statistics",
                r#"{"stats_polling_interval_s": 1}"#,
            ),
            ("PUT", "/logger", "{}"),
            ("PUT", "/metrics", r#"{"metrics_path": "/m"}"#),
            ("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#),
            ("PUT", "/actions", r#"{"action_type": "FlushMetrics"}"#),
            ("PUT", "/actions", r#"{"action_type": "SendCtrlAltDel"}"#),
            ("PUT", "/actions", r#"{"action_type": "PressPowerButton"}"#),
            ("PATCH", "/vm", r#"{"state": "Paused"}"#),
            ("PATCH", "/vm/", r#"{"state": "Resumed"}"#),
            ("PUT", "/snapshot/create", SNAPSHOT),
            ("PUT", "/snapshot/load", SNAPSHOT),
        ] {
            command(method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        }
    }

    #[test]
    fn every_refusal_says_why() {
        for (method, path, body, words) in [
            (
                "GET",
                "/nothing",
                "",
                "Invalid request method and/or path: GET nothing.",
            ),
            ("GET", "/vm", "", "Invalid request method and/or path: GET vm."),
            (
                "GET",
                "/boot-source",
                "",
                "Invalid request method and/or path: GET boot-source.",
            ),
            (
                "PATCH",
                "/logger",
                "{}",
                "Invalid request method and/or path: PATCH logger.",
            ),
            (
                "POST",
                "/actions",
                "{}",
                "Invalid request method and/or path: POST actions.",
            ),
            ("GET", "/", "{}", "GET request cannot have a body."),
            ("PUT", "/vsock", "", "Empty PUT request."),
            ("PATCH", "/vm", "", "Empty PATCH request."),
            ("PATCH", "/machine-config", "{}", "Empty PATCH request."),
            (
                "PATCH",
                "/drives/a",
                r#"{"drive_id": "a"}"#,
                "Empty PATCH request.",
            ),
            ("PUT", "/drives", DRIVE, "The ID cannot be empty."),
            ("PUT", "/drives/", DRIVE, "The ID cannot be empty."),
            ("PUT", "/drives/a-b", DRIVE, "API Resource IDs can only contain"),
            ("PUT", "/drives/a/b", DRIVE, "API Resource IDs can only contain"),
            (
                "PUT",
                "/drives/b",
                DRIVE,
                "The id from the path does not match the id from the body!",
            ),
            (
                "PUT",
                "/vsock",
                "{",
                "An error occurred when deserializing the json body of a request: EOF",
            ),
            ("PUT", "/vsock", "\u{fe}", "An error occurred when deserializing"),
            ("PUT", "/entropy", r#"{"x": 1}"#, "unknown field `x`"),
            (
                "PUT",
                "/actions",
                r#"{"action_type": "Explode"}"#,
                "unknown variant `Explode`",
            ),
            (
                "PATCH",
                "/drives/a",
                r#"{"drive_id": "a", "is_read_only": true}"#,
                "unknown field `is_read_only`",
            ),
            (
                "PUT",
                "/snapshot/load",
                r#"{"snapshot_path": "/s"}"#,
                "mem_backend",
            ),
            ("PUT", "/mmds/config", "{}", "not supported: mmds"),
            ("GET", "/hotplug/memory", "", "not supported: hotplug/memory"),
        ] {
            let error = command(method, path, body).unwrap_err();
            assert!(
                error.starts_with(words) || error.contains(words),
                "{method} {path}: {error}"
            );
        }
    }
}
