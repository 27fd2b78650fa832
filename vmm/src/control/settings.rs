//! Before the start: each request is a part of the configuration.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{Controller, Refusal};
use crate::api::{Fault, Setting};
use crate::config::{BootSource, CpuTemplate, Drive, MachineConfig, Metrics, Settings};
use crate::error::{Error, Result};
use crate::{loader, logger};

impl Controller {
    /// Takes a part of the configuration.
    pub(super) fn set(&mut self, setting: Setting) -> Result<(), Refusal> {
        let settings = &mut self.settings;
        match setting {
            Setting::BootSource(boot) => {
                readable_images(&boot)?;
                settings.change(|new| new.boot_source = Some(boot))?;
            }
            Setting::Machine(machine) => change_machine(settings, machine.cpu_template, machine)?,
            Setting::MachineFields(fields) => {
                let machine = settings.machine_config.changed(&fields).map_err(Fault::Body)?;
                let template = machine
                    .cpu_template
                    .filter(|_| fields.contains_key("cpu_template"));
                change_machine(settings, template, machine)?;
            }
            // The last of the two that names a template wins.
            Setting::Cpu(cpu) => settings.change(|new| {
                new.cpu_config = Some(cpu);
                new.machine_config.cpu_template = None;
            })?,
            Setting::Drive(drive) => {
                readable_disk(&drive)?;
                settings.put_drive(drive)?;
            }
            Setting::NetworkInterface(interface) => settings.put_network_interface(interface)?,
            Setting::Vsock(vsock) => settings.change(|new| new.vsock = Some(vsock))?,
            Setting::Entropy(entropy) => settings.change(|new| new.entropy = Some(entropy))?,
            Setting::Balloon(balloon) => settings.change(|new| new.balloon = Some(balloon))?,
            Setting::Logger(change) => {
                logger::update(&change)?;
                settings.change(|new| new.logger = Some(change))?;
            }
            Setting::Metrics(metrics) => self.write_metrics(metrics)?,
        }
        Ok(())
    }

    /// Begins to write the counters, once.
    ///
    /// # Errors
    ///
    /// Those of [`crate::metrics::Writer::open`].
    pub fn write_metrics(&mut self, metrics: Metrics) -> Result<()> {
        self.writer.open(&metrics)?;
        self.settings.change(|new| new.metrics = Some(metrics))
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

fn readable_images(boot: &BootSource) -> Result<()> {
    let kernel = &boot.kernel_image_path;
    readable(kernel).map_err(|e| Error::Kernel {
        path: kernel.clone(),
        source: loader::Error::Read(e),
    })?;
    let Some(initrd) = &boot.initrd_path else {
        return Ok(());
    };
    readable(initrd).map_err(|e| Error::Initrd {
        path: initrd.clone(),
        source: loader::Error::Read(e),
    })
}

fn readable_disk(drive: &Drive) -> Result<()> {
    readable(&drive.path_on_host).map_err(|source| Error::Drive {
        id: drive.drive_id.to_string(),
        path: drive.path_on_host.clone(),
        source,
    })
}

/// Tells early of a file that cannot be read; it is opened again at the start. Does not wait for somebody to write to a pipe.
fn readable(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty()).map(drop)?)
}
