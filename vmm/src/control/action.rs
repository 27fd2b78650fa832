//! After the start: each request does something to the machine.

use std::sync::PoisonError;
use std::time::Instant;

use super::files::Inside;
use super::{Controller, Refusal, Running, Status};
use crate::api::{Action, Response};
use crate::arch::x86_64::layout;
use crate::config::{BalloonChange, DriveChange, Id, NetworkInterfaceChange};
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::endpoint::Shared;
use crate::error::{Error, Result};
use crate::snapshot::{self, Standing};

impl Controller {
    /// Does something to the running machine, with the files it takes.
    pub(super) fn act(&mut self, action: Action, mut files: Inside) -> Result<Response, Refusal> {
        // There is one: the status says so.
        let Some(running) = &self.running else {
            return Err(Refusal::Early);
        };
        match action {
            Action::Pause => {
                self.metrics.latencies_us.pause_vm.of(|| {
                    running.processors.pause();
                    running.shares.pause();
                });
                self.status = Status::Paused;
            }
            Action::Resume => {
                self.metrics.latencies_us.resume_vm.of(|| {
                    running.shares.resume();
                    running.processors.resume();
                });
                self.status = Status::Running;
            }
            Action::SendCtrlAltDel => running.ctrl_alt_del()?,
            Action::PressPowerButton => running.vm.pulse(layout::POWER_BUTTON_IRQ)?,
            Action::FlushMetrics => self.writer.flush()?,
            Action::ChangeDrive(change) => {
                running.change_drive(&change, &mut files)?;
                self.settings.changed_drive(change);
            }
            Action::ChangeNetworkInterface(change) => {
                running.change_network_interface(&change)?;
                self.settings.changed_network_interface(&change);
            }
            Action::ChangeBalloon(BalloonChange { amount_mib }) => {
                let balloon = running.balloon()?;
                self.settings.resize_balloon(amount_mib)?;
                balloon.change(|balloon| balloon.resize(amount_mib));
            }
            Action::ChangeBalloonStatistics(change) => {
                let interval_s = change.stats_polling_interval_s;
                if !running
                    .balloon()?
                    .change(|balloon| balloon.poll_every(interval_s))
                {
                    return Err(Refusal::StatisticsSettled);
                }
                self.settings.poll_balloon(interval_s);
            }
            Action::TellBalloonStatistics => {
                let statistics = running.balloon()?.read(Balloon::statistics);
                return match statistics {
                    Some(statistics) => Ok(Response::json(&statistics)),
                    None => Err(Refusal::NoStatistics),
                };
            }
            Action::CreateSnapshot(ask) => {
                if self.status != Status::Paused {
                    return Err(Refusal::Runs);
                }
                let machine = Standing {
                    settings: &self.settings,
                    vm: &running.vm,
                    processors: &running.processors,
                    slots: &running.slots,
                    serial: &running.serial,
                    keyboard: &running.keyboard,
                };
                let begin = Instant::now();
                let (memory, state) = (files.next()?, files.next()?);
                snapshot::save(&machine, &ask, [&memory, &state])?;
                self.metrics.latencies_us.full_create_snapshot.since(begin);
            }
        }
        Ok(Response::done())
    }
}

/// The device of this kind and name.
fn called<'a, D>(devices: &'a [(Id, D)], kind: &'static str, id: &Id) -> Result<&'a D, Refusal> {
    let found = devices.iter().find(|(name, _)| name == id);
    found
        .map(|(_, device)| device)
        .ok_or_else(|| Refusal::NoneCalled(kind, id.clone()))
}

impl Running {
    fn change_drive(&self, change: &DriveChange, files: &mut Inside) -> Result<(), Refusal> {
        let id = &change.drive_id;
        let disk = called(&self.drives, "drive", id)?;
        disk.change(|disk| {
            if let Some(path) = &change.path_on_host {
                disk.change_file(files.next()?).map_err(|source| Error::Drive {
                    id: id.to_string(),
                    path: path.clone(),
                    source,
                })?;
            }
            if let Some(limits) = change.rate_limiter {
                disk.change_limits(limits);
            }
            Ok(())
        })
    }

    fn change_network_interface(&self, change: &NetworkInterfaceChange) -> Result<(), Refusal> {
        let card = called(&self.interfaces, "network interface", &change.iface_id)?;
        let (receive, send) = (change.rx_rate_limiter, change.tx_rate_limiter);
        card.change(|card| card.change_limits(receive.unwrap_or_default(), send.unwrap_or_default()));
        Ok(())
    }

    fn balloon(&self) -> Result<&Shared<Balloon>, Refusal> {
        self.balloon.as_deref().ok_or(Refusal::NoDevice("balloon"))
    }

    fn ctrl_alt_del(&self) -> Result<(), Refusal> {
        let mut keyboard = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        keyboard.ctrl_alt_del().map_err(Refusal::Keys)
    }
}
