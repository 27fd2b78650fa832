//! After the start: each request does something to the machine.

use std::sync::PoisonError;

use super::{Controller, Refusal, Running, Status};
use crate::api::Action;
use crate::error::Result;

impl Controller {
    /// Does something to the running machine.
    pub(super) fn act(&mut self, action: Action) -> Result<(), Refusal> {
        // There is one: the status says so.
        let Some(running) = &self.running else {
            return Err(Refusal::Early);
        };
        match action {
            Action::Pause => {
                self.metrics
                    .latencies_us
                    .pause_vm
                    .of(|| running.processors.pause());
                self.status = Status::Paused;
            }
            Action::Resume => {
                self.metrics
                    .latencies_us
                    .resume_vm
                    .of(|| running.processors.resume());
                self.status = Status::Running;
            }
            Action::SendCtrlAltDel => running.ctrl_alt_del()?,
            Action::FlushMetrics => self.writer.flush()?,
            Action::ChangeDrive(_) => return Err(Refusal::absent("drives")),
            Action::ChangeNetworkInterface(_) => return Err(Refusal::absent("network-interfaces")),
            Action::ChangeBalloon(_) | Action::ChangeBalloonStatistics(_) | Action::TellBalloonStatistics => {
                return Err(Refusal::absent("balloon"));
            }
            Action::CreateSnapshot(_) => return Err(Refusal::absent("snapshot/create")),
        }
        Ok(())
    }
}

impl Running {
    fn ctrl_alt_del(&self) -> Result<(), Refusal> {
        let mut keyboard = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        keyboard.ctrl_alt_del().map_err(Refusal::Keys)
    }
}
