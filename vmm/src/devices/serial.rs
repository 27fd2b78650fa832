//! COM1: a 16550 whose output goes to the monitor's standard output and whose input comes from its standard input.

use std::collections::VecDeque;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::Registers;
use crate::exit::Exit;
use crate::snapshot::bounded::at_most;

/// Input that waits for the guest to read it. More is not taken from the host meanwhile (CVE-2020-27174).
const INPUT_MAX: usize = 4096;

/// Raises the interrupt line that KVM listens on.
pub(crate) struct Line(pub(crate) EventFd);

impl Trigger for Line {
    type E = io::Error;
    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Where the guest's output goes. One that nobody reads loses bytes instead of stopping the guest.
pub(crate) type Output = Box<dyn Write + Send>;

pub(crate) struct SerialPort {
    port: Serial<Line, NoEvents, Output>,
    waiting: VecDeque<u8>,
    /// Written to when the guest has taken the last of what waited.
    drained: EventFd,
}

/// Length of its block of ports.
pub(crate) const SERIAL_LEN: u64 = 8;

/// What a snapshot holds of it: the chip's registers in the order of their numbers, those behind them, and input the guest has
/// not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    divisor: [u8; 2],
    registers: [u8; 7],
    #[serde(deserialize_with = "at_most::<_, _, FIFO_LEN>")]
    fifo: Vec<u8>,
    #[serde(deserialize_with = "at_most::<_, _, INPUT_MAX>")]
    waiting: Vec<u8>,
}

/// As many bytes the chip holds.
const FIFO_LEN: usize = 64;

impl Default for Saved {
    fn default() -> Saved {
        Saved::of(&SerialState::default(), Vec::new())
    }
}

impl Saved {
    fn of(chip: &SerialState, waiting: Vec<u8>) -> Saved {
        Saved {
            divisor: [chip.baud_divisor_low, chip.baud_divisor_high],
            registers: [
                chip.interrupt_enable,
                chip.interrupt_identification,
                chip.line_control,
                chip.modem_control,
                chip.line_status,
                chip.modem_status,
                chip.scratch,
            ],
            fifo: chip.in_buffer.clone(),
            waiting,
        }
    }

    fn chip(&self) -> SerialState {
        let [baud_divisor_low, baud_divisor_high] = self.divisor;
        let [
            interrupt_enable,
            interrupt_identification,
            line_control,
            modem_control,
            line_status,
            modem_status,
            scratch,
        ] = self.registers;
        SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: self.fifo.clone(),
        }
    }
}

impl SerialPort {
    /// One as it was saved, or as the default is, a fresh one. An interrupt that waits is raised.
    ///
    /// # Errors
    ///
    /// Those of `eventfd(2)`.
    pub(crate) fn new(line: Line, output: Output, saved: &Saved) -> io::Result<SerialPort> {
        let port = Serial::from_state(&saved.chip(), line, NoEvents, output);
        Ok(SerialPort {
            port: port.map_err(|e| io::Error::other(format!("the serial port: {e:?}")))?,
            waiting: saved.waiting.iter().copied().collect(),
            drained: EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?,
        })
    }

    /// What a snapshot has to know of it.
    pub(crate) fn save(&self) -> Saved {
        Saved::of(&self.port.state(), self.waiting.iter().copied().collect())
    }

    /// Readable, edge by edge, when input that had to wait is gone.
    pub(crate) fn drained(&self) -> &EventFd {
        &self.drained
    }

    /// How many bytes of input it takes now.
    pub(crate) fn room(&self) -> usize {
        INPUT_MAX - self.waiting.len()
    }

    /// Takes input, at most [`SerialPort::room`] bytes; what the chip's FIFO has no room for waits.
    pub(crate) fn input(&mut self, bytes: &[u8]) {
        self.waiting.extend(&bytes[..bytes.len().min(self.room())]);
        self.fill();
    }

    fn fill(&mut self) {
        while self.port.fifo_capacity() > 0 && !self.waiting.is_empty() {
            let count = self.port.fifo_capacity().min(self.waiting.len());
            let bytes: Vec<u8> = self.waiting.drain(..count).collect();
            // Refused while the guest loops the port back on itself, or the line cannot be raised: a keystroke is lost.
            if self.port.enqueue_raw_bytes(&bytes).is_err() {
                return;
            }
            if self.waiting.is_empty() {
                // Fails only when it has been told 2^64 times.
                let _ = self.drained.write(1);
            }
        }
    }
}

impl Registers for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            *byte = self.port.read(offset);
            self.fill();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Exit> {
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            // An output that is gone loses what the guest says; the guest goes on.
            let _ = self.port.write(offset, *byte);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_bounded_and_arrives_in_order() {
        let line = Line(EventFd::new(0).unwrap());
        let mut port = SerialPort::new(line, Box::new(io::sink()), &Saved::default()).unwrap();
        let text: Vec<u8> = (0..5000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let taken = port.room();
        port.input(&text);
        assert!(port.room() < 100);
        let mut got = Vec::new();
        let mut status = [0];
        loop {
            port.read(5, &mut status);
            if status[0] & 1 == 0 {
                break;
            }
            let mut byte = [0];
            port.read(0, &mut byte);
            got.push(byte[0]);
        }
        assert_eq!(got, text[..taken]);
        assert_eq!(port.room(), INPUT_MAX);
    }
}
