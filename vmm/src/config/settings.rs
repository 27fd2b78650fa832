//! A configuration that grows: the file gives it at once, the API bit by bit.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Balloon, BootSource, Config, CpuConfig, CpuTemplate, Drive, DriveChange, Entropy, HugePages, IoEngine,
    Logger, MachineConfig, Metrics, Named, NetworkInterface, NetworkInterfaceChange, RateLimiter,
    SharedDirectory, Vsock,
};
use crate::arch::x86_64::layout::VIRTIO_MAX;
use crate::error::{Error, Result};

/// What has been asked for so far, as the configuration file writes it. At any time what is there fits together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// What the machine starts.
    pub boot_source: Option<BootSource>,
    /// Processors and memory.
    #[serde(default)]
    pub machine_config: MachineConfig,
    /// What the processors say of themselves.
    #[serde(default, deserialize_with = "super::cpu::there_or_named")]
    pub cpu_config: Option<CpuConfig>,
    /// Disks, the root device first.
    #[serde(default)]
    pub drives: Vec<Drive>,
    /// Network interfaces.
    #[serde(default)]
    pub network_interfaces: Vec<NetworkInterface>,
    /// Directories of the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_directories: Vec<SharedDirectory>,
    /// Sockets between host and guest.
    pub vsock: Option<Vsock>,
    /// A memory balloon.
    pub balloon: Option<Balloon>,
    /// A source of random numbers.
    pub entropy: Option<Entropy>,
    /// The log.
    pub logger: Option<Logger>,
    /// The counters.
    pub metrics: Option<Metrics>,
    /// Read so that it can be refused by name, as are the following.
    #[serde(skip_serializing)]
    mmds_config: Option<Value>,
    #[serde(skip_serializing, default)]
    pmem: Vec<Value>,
    #[serde(skip_serializing)]
    memory_hotplug: Option<Value>,
    #[serde(skip_serializing)]
    serial: Option<Value>,
}

impl Settings {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Syntax`] with line and column, and [`Error::Invalid`] with the field's name.
    pub fn read(path: &Path) -> Result<Settings> {
        let bytes = std::fs::read(path).map_err(|source| Error::File {
            operation: "read",
            path: path.into(),
            source,
        })?;
        let settings: Settings = serde_json::from_slice(&bytes).map_err(|source| Error::Syntax {
            path: path.into(),
            source,
        })?;
        let mut checked = Settings::default();
        checked.change(|new| *new = settings)?;
        Ok(checked)
    }

    /// Changes something, if what comes of it fits together; otherwise nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the name of the field that does not fit, and [`Error::Unsupported`] with one this monitor does not have.
    pub fn change(&mut self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let mut new = self.clone();
        change(&mut new);
        // Stable, and false goes first.
        new.drives.sort_by_key(|drive| !drive.is_root_device);
        new.check()?;
        *self = new;
        Ok(())
    }

    /// Without log and metrics: what a snapshot takes along.
    #[must_use]
    pub(crate) fn of_machine(&self) -> Settings {
        let mut machine = self.clone();
        machine.take_process(&Settings::default());
        machine
    }

    /// Takes log and metrics of others: they are the process's, whatever machine it runs.
    pub(crate) fn take_process(&mut self, process: &Settings) {
        self.logger.clone_from(&process.logger);
        self.metrics.clone_from(&process.metrics);
    }

    /// Adds a disk, or replaces the one of its name.
    ///
    /// # Errors
    ///
    /// Those of [`Settings::change`].
    pub fn put_drive(&mut self, drive: Drive) -> Result<()> {
        self.change(|new| put(&mut new.drives, drive))
    }

    /// Adds a network interface, or replaces the one of its name.
    ///
    /// # Errors
    ///
    /// Those of [`Settings::change`].
    pub fn put_network_interface(&mut self, interface: NetworkInterface) -> Result<()> {
        self.change(|new| put(&mut new.network_interfaces, interface))
    }

    /// What became of a running machine's disk.
    pub(crate) fn changed_drive(&mut self, change: DriveChange) {
        if let Some(drive) = self
            .drives
            .iter_mut()
            .find(|drive| drive.drive_id == change.drive_id)
        {
            drive.path_on_host = change.path_on_host.unwrap_or_else(|| drive.path_on_host.clone());
            limit(&mut drive.rate_limiter, change.rate_limiter);
        }
    }

    /// What became of a running machine's network interface.
    pub(crate) fn changed_network_interface(&mut self, change: &NetworkInterfaceChange) {
        if let Some(interface) = self
            .network_interfaces
            .iter_mut()
            .find(|interface| interface.iface_id == change.iface_id)
        {
            limit(&mut interface.rx_rate_limiter, change.rx_rate_limiter);
            limit(&mut interface.tx_rate_limiter, change.tx_rate_limiter);
        }
    }

    /// Another size of a running machine's balloon.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is larger than the memory.
    pub(crate) fn resize_balloon(&mut self, amount_mib: u32) -> Result<()> {
        self.change(|new| {
            if let Some(balloon) = &mut new.balloon {
                balloon.amount_mib = amount_mib;
            }
        })
    }

    /// How often a running machine's balloon is asked.
    pub(crate) fn poll_balloon(&mut self, interval_s: u16) {
        if let Some(balloon) = &mut self.balloon {
            balloon.stats_polling_interval_s = interval_s;
        }
    }

    /// Everything a machine needs.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is nothing to boot.
    pub fn complete(&self) -> Result<Config> {
        let Some(boot) = &self.boot_source else {
            return Err(Error::Invalid {
                field: "boot-source",
                why: "there is none, and nothing boots without a kernel".into(),
            });
        };
        Ok(Config {
            kernel: boot.kernel_image_path.clone(),
            initrd: boot.initrd_path.clone(),
            cmdline: boot.cmdline(self.root_device())?,
            vcpus: self.machine_config.vcpu_count,
            memory_mib: self.machine_config.mem_size_mib,
            cpu: self.cpu_config.clone().unwrap_or_default(),
            drives: self.drives.clone(),
            network_interfaces: self.network_interfaces.clone(),
            shared_directories: self.shared_directories.clone(),
            vsock: self.vsock.clone(),
            balloon: self.balloon.clone(),
            entropy: self.entropy.clone(),
        })
    }

    fn root_device(&self) -> Option<&Drive> {
        self.drives.first().filter(|drive| drive.is_root_device)
    }

    fn check(&self) -> Result<()> {
        let invalid = |field, why: String| Err(Error::Invalid { field, why });
        self.machine_config.check()?;
        if let Some(boot) = &self.boot_source {
            boot.cmdline(self.root_device())?;
        }
        let others = [
            self.vsock.is_some(),
            self.balloon.is_some(),
            self.entropy.is_some(),
        ];
        let devices = self.drives.len()
            + self.network_interfaces.len()
            + self.shared_directories.len()
            + others.into_iter().filter(|it| *it).count();
        if devices > VIRTIO_MAX {
            return invalid(
                "drives and network-interfaces",
                format!("with the other devices there is room for {VIRTIO_MAX}"),
            );
        }
        if let Some(id) = twin(&self.drives, |drive| &drive.drive_id) {
            return invalid("drives", format!("two have the id {id}"));
        }
        if self.drives.iter().filter(|drive| drive.is_root_device).count() > 1 {
            // Firecracker's words, which clients look for.
            return invalid("drives", "A root block device already exists".into());
        }
        let interfaces = &self.network_interfaces;
        interfaces.iter().try_for_each(NetworkInterface::check)?;
        if let Some(id) = twin(interfaces, |interface| &interface.iface_id) {
            return invalid("network-interfaces", format!("two have the id {id}"));
        }
        if let Some(name) = twin(interfaces, |interface| &interface.host_dev_name) {
            return invalid(
                "network-interfaces",
                format!("The host device name is already in use: {name}"),
            );
        }
        let addressed: Vec<_> = interfaces.iter().filter_map(|i| i.guest_mac).collect();
        if let Some(address) = twin(&addressed, |address| address) {
            return invalid(
                "network-interfaces",
                format!("The MAC address is already in use: {address}"),
            );
        }
        let shares = &self.shared_directories;
        shares.iter().try_for_each(SharedDirectory::check)?;
        if let Some(tag) = twin(shares, |share| &share.tag) {
            return invalid("shared-directories", format!("two have the tag {tag}"));
        }
        self.vsock.iter().try_for_each(Vsock::check)?;
        let memory_mib = self.machine_config.mem_size_mib;
        self.balloon
            .iter()
            .try_for_each(|balloon| balloon.check(memory_mib))?;
        self.absent()
    }

    /// What is not there yet is refused by name, never left out in silence.
    fn absent(&self) -> Result<()> {
        let machine = &self.machine_config;
        let template = machine.cpu_template.unwrap_or(CpuTemplate::None);
        let why = "this monitor does not have it yet";
        let drive = |asked: fn(&Drive) -> bool| self.drives.iter().any(asked);
        for (asked, what) in [
            (
                drive(|drive| drive.io_engine == IoEngine::Async),
                "drives.io_engine",
            ),
            (drive(|drive| drive.socket.is_some()), "drives.socket"),
            (
                self.balloon
                    .as_ref()
                    .is_some_and(|balloon| balloon.free_page_hinting),
                "balloon.free_page_hinting",
            ),
            (self.mmds_config.is_some(), "mmds-config"),
            (!self.pmem.is_empty(), "pmem"),
            (self.memory_hotplug.is_some(), "memory-hotplug"),
            (self.serial.is_some(), "serial"),
            (machine.smt, "machine-config.smt"),
            (machine.track_dirty_pages, "machine-config.track_dirty_pages"),
            (template != CpuTemplate::None, "machine-config.cpu_template"),
            (machine.huge_pages != HugePages::None, "machine-config.huge_pages"),
        ] {
            if asked {
                return Err(Error::Unsupported { what, why });
            }
        }
        Ok(())
    }
}

/// Changes what is named of some limits.
fn limit(limits: &mut Option<RateLimiter>, change: Option<RateLimiter>) {
    if let Some(change) = change {
        *limits = Some(limits.unwrap_or_default().changed(change));
    }
}

/// Replaces what has the same id, or adds it.
fn put<T: Named>(list: &mut Vec<T>, new: T) {
    match list.iter_mut().find(|old| old.id() == new.id()) {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

/// The first key that two have.
fn twin<T, K: PartialEq>(list: &[T], key: impl Fn(&T) -> &K) -> Option<&K> {
    let keys = || list.iter().map(&key);
    keys()
        .enumerate()
        .find(|(at, one)| keys().take(*at).any(|other| other == *one))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::layout::CMDLINE_MAX;
    use crate::config::DEFAULT_CMDLINE;

    const BOOT: &str = r#""boot-source": {"kernel_image_path": "/k"}"#;

    fn settings(text: &str) -> Result<Settings, String> {
        let read: Settings = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut settings = Settings::default();
        settings.change(|new| *new = read).map_err(|e| e.to_string())?;
        Ok(settings)
    }

    fn complete(text: &str) -> Result<Config, String> {
        settings(text)?.complete().map_err(|e| e.to_string())
    }

    fn drive(id: &str, root: bool) -> Drive {
        let text = format!(r#"{{"drive_id": "{id}", "path_on_host": "/{id}", "is_root_device": {root}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn defaults_are_firecrackers() {
        let config = complete(&format!("{{{BOOT}}}")).unwrap();
        assert_eq!(
            (config.vcpus, config.memory_mib, &*config.cmdline),
            (1, 128, DEFAULT_CMDLINE)
        );
    }

    #[test]
    fn every_refusal_names_its_field() {
        let long = "x".repeat(CMDLINE_MAX);
        let drive = r#"{"drive_id": "a", "path_on_host": "/", "is_root_device": true}"#;
        let interface = |id: &str, tap: &str, mac: &str| {
            format!(r#"{{"iface_id": "{id}", "host_dev_name": "{tap}", "guest_mac": "{mac}"}}"#)
        };
        let (mac, other) = ("06:00:00:00:00:01", "06:00:00:00:00:02");
        let interfaces =
            |first: String, second: String| format!(r#""network-interfaces": [{first}, {second}]"#);
        for (rest, words) in [
            (r#""drive": []"#.to_owned(), "drive"),
            (r#""drives": [1]"#.to_owned(), "Drive"),
            (
                r#""machine-config": {"vcpu_count": 33, "mem_size_mib": 1}"#.into(),
                "vcpu_count: 33",
            ),
            (
                r#""machine-config": {"vcpu_count": 3, "mem_size_mib": 1, "smt": true}"#.into(),
                "vcpu_count",
            ),
            (
                r#""machine-config": {"vcpu_count": 1, "mem_size_mib": 0}"#.into(),
                "mem_size_mib",
            ),
            (
                r#""machine-config": {"vcpu_count": 1, "mem_size_mib": 1, "huge_pages": "2M"}"#.into(),
                "mem_size_mib",
            ),
            (
                r#""machine-config": {"vcpu_count": 1, "mem_size_mib": 1, "smt": true}"#.into(),
                "smt",
            ),
            (r#""machine-config": {"vcpu_count": 1}"#.into(), "mem_size_mib"),
            (
                format!(r#""drives": [{drive}, {drive}]"#),
                "drives: two have the id a",
            ),
            (
                format!(r#""drives": [{drive}, {}]"#, drive.replace("\"a\"", "\"b\"")),
                "A root block device already exists",
            ),
            (
                r#""drives": [{"drive_id": "a/b", "path_on_host": "/", "is_root_device": true}]"#.into(),
                "alphanumeric",
            ),
            (
                interfaces(interface("a", "t", mac), interface("b", "u", mac)),
                "MAC address is already in use",
            ),
            (
                interfaces(interface("a", "t", mac), interface("b", "t", other)),
                "name is already in use: t",
            ),
            (
                interfaces(interface("a", "t", mac), interface("a", "u", other)),
                "two have the id a",
            ),
            (
                interfaces(interface("a", "../t", mac), interface("b", "u", other)),
                "../t",
            ),
            (
                r#""vsock": {"guest_cid": 2, "uds_path": "/s"}"#.into(),
                "vsock.guest_cid: 2",
            ),
            (
                r#""balloon": {"amount_mib": 129, "deflate_on_oom": false}"#.into(),
                "balloon.amount_mib: 129",
            ),
            (
                r#""shared-directories": [{"tag": "a/b", "path_on_host": "/"}]"#.into(),
                "alphanumeric",
            ),
            (
                format!(
                    r#""shared-directories": [{{"tag": "{}", "path_on_host": "/"}}]"#,
                    "t".repeat(37)
                ),
                "shared-directories.tag",
            ),
            (
                r#""shared-directories": [{"tag": "t", "path_on_host": "/"}, {"tag": "t", "path_on_host": "/x"}]"#
                    .into(),
                "two have the tag t",
            ),
            (r#""mmds-config": {}"#.into(), "not supported: mmds-config"),
            (r#""pmem": [{}]"#.into(), "not supported: pmem"),
        ] {
            let error = complete(&format!("{{{BOOT}, {rest}}}")).unwrap_err();
            assert!(error.contains(words), "{rest}: {error}");
        }
        assert!(complete("{}").unwrap_err().contains("boot-source"));
        let args = format!(r#"{{"boot-source": {{"kernel_image_path": "/k", "boot_args": "{long}"}}}}"#);
        assert!(complete(&args).unwrap_err().contains("boot_args"));
    }

    #[test]
    fn a_change_that_does_not_fit_changes_nothing() {
        let mut settings = settings(&format!("{{{BOOT}}}")).unwrap();
        settings.put_drive(drive("data", false)).unwrap();
        settings.put_drive(drive("root", true)).unwrap();
        let ids = |settings: &Settings| -> Vec<String> {
            settings
                .drives
                .iter()
                .map(|drive| drive.drive_id.to_string())
                .collect()
        };
        assert_eq!(
            ids(&settings),
            ["root", "data"],
            "the root device is the first disk"
        );
        let before = settings.clone();
        settings.put_drive(drive("data", true)).unwrap_err();
        assert_eq!(settings, before);
        let mut moved = drive("data", false);
        moved.path_on_host = "/elsewhere".into();
        settings.put_drive(moved.clone()).unwrap();
        assert_eq!(settings.drives[1], moved);
    }

    #[test]
    fn there_is_an_end_to_devices() {
        let mut settings = Settings::default();
        settings
            .change(|new| new.entropy = Some(Entropy { rate_limiter: None }))
            .unwrap();
        for n in 1..VIRTIO_MAX {
            settings.put_drive(drive(&format!("d{n}"), false)).unwrap();
        }
        let error = settings.put_drive(drive("more", false)).unwrap_err();
        assert!(error.to_string().contains("room for 256"), "{error}");
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let text = r#"{"boot-source": {"kernel_image_path": "/k"},
            "drives": [{"drive_id": "r", "path_on_host": "/r", "is_root_device": true, "cache_type": "Writeback",
                        "rate_limiter": {"bandwidth": {"size": 5, "refill_time": 10, "one_time_burst": 1}}}],
            "network-interfaces": [{"iface_id": "e", "host_dev_name": "tap0", "guest_mac": "06:00:00:00:00:01"}],
            "vsock": {"guest_cid": 3, "uds_path": "/v"}, "entropy": {},
            "balloon": {"amount_mib": 5, "deflate_on_oom": true, "stats_polling_interval_s": 1},
            "logger": {"level": "Debug"}, "metrics": {"metrics_path": "/m"}}"#;
        let first = settings(text).unwrap();
        let written = serde_json::to_string(&first).unwrap();
        assert_eq!(settings(&written).unwrap(), first, "{written}");
    }
}
