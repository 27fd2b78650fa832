//! The i8042 controller of a PC and the keyboard on it: the reset line, and one shortcut, Ctrl+Alt+Del.
//!
//! A stock kernel probes both at its start and waits half a second for each answer that does not come, so everything it asks
//! has one.

use std::collections::VecDeque;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::Registers;
use crate::exit::Exit;
use crate::snapshot::bounded::at_most;

/// Its ports, behind the first: what lies in between is the timer's, or nobody's.
pub(crate) const I8042_PARTS: [Range<u64>; 2] = [DATA..DATA + 1, COMMAND..COMMAND + 1];

const DATA: u64 = 0;
const COMMAND: u64 = 4;

/// Bytes the guest has not read.
const QUEUE_MAX: usize = 16;

const STATUS_FULL: u8 = 1;
/// The self-test went well, the keyboard is not locked.
const STATUS_READY: u8 = 1 << 2 | 1 << 4;

const CONTROL_INTERRUPT: u8 = 1;
const CONTROL_TESTED: u8 = 1 << 2;

/// What the keyboard says to everything it understands.
const ACKNOWLEDGE: u8 = 0xfa;
/// Ctrl, Alt and Del go down, and up again, in the second set of scan codes, the one an untranslated keyboard speaks.
const CTRL_ALT_DEL: [u8; 11] = [0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14];

/// Controller and keyboard.
pub(crate) struct Keyboard {
    line: EventFd,
    control: u8,
    output_port: u8,
    queue: VecDeque<u8>,
    /// What the next byte at the data port is.
    next: Next,
}

/// What a snapshot holds of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    control: u8,
    output_port: u8,
    #[serde(deserialize_with = "at_most::<_, _, QUEUE_MAX>")]
    queue: Vec<u8>,
    next: Next,
}

/// The meaning of a byte at the data port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Next {
    /// A command to the keyboard.
    ToKeyboard,
    /// What follows a command to the keyboard.
    Argument,
    /// The controller's control byte.
    Control,
    /// The controller's output port.
    OutputPort,
    /// A byte for a mouse, of which there is none.
    Nobody,
}

/// The guest has not read the keys that were pressed before: it has no driver, or stands.
#[derive(Debug, thiserror::Error)]
#[error("the guest does not read its keyboard")]
pub struct Unread;

impl Keyboard {
    /// `line` raises its interrupt.
    pub(crate) fn new(line: EventFd) -> Keyboard {
        Keyboard {
            line,
            control: CONTROL_INTERRUPT | CONTROL_TESTED,
            output_port: 0,
            queue: VecDeque::new(),
            next: Next::ToKeyboard,
        }
    }

    /// What a snapshot has to know.
    pub(crate) fn save(&self) -> Saved {
        Saved {
            control: self.control,
            output_port: self.output_port,
            queue: self.queue.iter().copied().collect(),
            next: self.next,
        }
    }

    /// Goes on from what was saved; what the guest has not read raises the interrupt again.
    pub(crate) fn restore(&mut self, saved: &Saved) {
        (self.control, self.output_port, self.next) = (saved.control, saved.output_port, saved.next);
        self.queue = saved.queue.iter().copied().collect();
        self.interrupt();
    }

    /// Somebody presses the three keys, which makes most systems restart.
    pub(crate) fn ctrl_alt_del(&mut self) -> Result<(), Unread> {
        if self.queue.len() + CTRL_ALT_DEL.len() > QUEUE_MAX {
            return Err(Unread);
        }
        self.queue.extend(CTRL_ALT_DEL);
        self.interrupt();
        Ok(())
    }

    /// An answer takes the place of what was not read.
    fn answer(&mut self, bytes: &[u8]) {
        self.queue.clear();
        self.queue.extend(bytes);
    }

    fn interrupt(&self) {
        if self.control & CONTROL_INTERRUPT != 0 && !self.queue.is_empty() {
            // Fails only when it was raised 2^64 times.
            let _ = self.line.write(1);
        }
    }

    fn command(&mut self, command: u8) -> Option<Exit> {
        self.next = Next::ToKeyboard;
        match command {
            0x20 => self.answer(&[self.control]),
            0x60 => self.next = Next::Control,
            0xd0 => self.answer(&[self.output_port]),
            0xd1 => self.next = Next::OutputPort,
            // Loop a byte back as if a mouse had sent it. Without one the byte does not come back as a mouse's.
            0xd3 => self.next = Next::Nobody,
            0xd4 => self.next = Next::Nobody,
            // Test of the mouse's lines: its clock is stuck.
            0xa9 => self.answer(&[1]),
            // Self-test of the controller, and of the keyboard's lines.
            0xaa => self.answer(&[0x55]),
            0xab => self.answer(&[0]),
            0xfe => return Some(Exit::Reset),
            _ => {}
        }
        None
    }

    fn data(&mut self, byte: u8) {
        match std::mem::replace(&mut self.next, Next::ToKeyboard) {
            Next::ToKeyboard => {
                self.answer(&[ACKNOWLEDGE]);
                match byte {
                    // Echo.
                    0xee => self.answer(&[0xee]),
                    // Who are you: an AT keyboard, untranslated.
                    0xf2 => self.queue.extend([0xab, 0x83]),
                    // Reset: the test went well.
                    0xff => self.queue.push_back(0xaa),
                    // Lights, rate, set of scan codes.
                    0xed | 0xf3 | 0xf0 => self.next = Next::Argument,
                    _ => {}
                }
                self.interrupt();
            }
            Next::Argument => {
                self.answer(&[ACKNOWLEDGE]);
                self.interrupt();
            }
            Next::Control => self.control = byte,
            Next::OutputPort => self.output_port = byte,
            Next::Nobody => self.answer(&[byte]),
        }
    }
}

impl Registers for Keyboard {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let [byte] = data else { return };
        match offset {
            DATA => {
                *byte = self.queue.pop_front().unwrap_or(0);
                self.interrupt();
            }
            COMMAND => *byte = STATUS_READY | if self.queue.is_empty() { 0 } else { STATUS_FULL },
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Exit> {
        let [byte] = data else { return None };
        match offset {
            DATA => self.data(*byte),
            COMMAND => return self.command(*byte),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyboard() -> Keyboard {
        Keyboard::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    fn read(keyboard: &mut Keyboard, offset: u64) -> u8 {
        let mut byte = [0];
        keyboard.read(offset, &mut byte);
        byte[0]
    }

    /// Everything there is to be read.
    fn drain(keyboard: &mut Keyboard) -> Vec<u8> {
        let mut bytes = Vec::new();
        while read(keyboard, COMMAND) & STATUS_FULL != 0 {
            bytes.push(read(keyboard, DATA));
        }
        bytes
    }

    #[test]
    fn keys_come_with_an_interrupt_for_each_byte() {
        let mut keyboard = keyboard();
        keyboard.ctrl_alt_del().unwrap();
        keyboard.ctrl_alt_del().unwrap_err();
        for expected in CTRL_ALT_DEL {
            assert_eq!(keyboard.line.read().unwrap(), 1);
            assert_eq!(read(&mut keyboard, DATA), expected);
        }
        keyboard.line.read().unwrap_err();
        assert_eq!(read(&mut keyboard, DATA), 0);
        keyboard.ctrl_alt_del().unwrap();
    }

    #[test]
    fn a_driver_that_wants_no_interrupts_gets_none() {
        let mut keyboard = keyboard();
        keyboard.write(COMMAND, &[0x60]);
        keyboard.write(DATA, &[CONTROL_TESTED]);
        keyboard.write(COMMAND, &[0x20]);
        assert_eq!(drain(&mut keyboard), [CONTROL_TESTED]);
        keyboard.ctrl_alt_del().unwrap();
        assert_eq!(drain(&mut keyboard).len(), CTRL_ALT_DEL.len());
        keyboard.line.read().unwrap_err();
    }

    #[test]
    fn everything_a_kernel_asks_has_an_answer() {
        let mut keyboard = keyboard();
        for (port, bytes, answer) in [
            (COMMAND, &[0xaa][..], &[0x55][..]),
            (COMMAND, &[0xab], &[0]),
            (COMMAND, &[0xa9], &[1]),
            (DATA, &[0xf2], &[0xfa, 0xab, 0x83]),
            (DATA, &[0xff], &[0xfa, 0xaa]),
            (DATA, &[0xee], &[0xee]),
            (DATA, &[0xf4], &[0xfa]),
        ] {
            keyboard.write(port, bytes);
            assert_eq!(drain(&mut keyboard), answer, "{bytes:x?}");
        }
        keyboard.write(DATA, &[0xed]);
        assert_eq!(drain(&mut keyboard), [0xfa]);
        // A light, and not the question who it is.
        keyboard.write(DATA, &[0xf2]);
        assert_eq!(drain(&mut keyboard), [0xfa]);
    }

    #[test]
    fn only_the_right_word_resets() {
        let mut keyboard = keyboard();
        assert_eq!(keyboard.write(DATA, &[0xfe]), None);
        assert_eq!(keyboard.write(COMMAND, &[0xfe, 0]), None);
        assert_eq!(keyboard.write(1, &[0xfe]), None);
        assert_eq!(keyboard.write(COMMAND, &[0xfe]), Some(Exit::Reset));
    }

    #[test]
    fn no_guest_makes_it_grow() {
        let mut keyboard = keyboard();
        let mut state = 1_u32;
        for _ in 0..100_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [_, byte, _, choice] = state.to_le_bytes();
            let _ = match choice % 4 {
                0 => keyboard.write(COMMAND, &[byte]),
                1 | 2 => keyboard.write(DATA, &[byte]),
                _ => keyboard.ctrl_alt_del().map_or(None, |()| None),
            };
            assert!(keyboard.queue.len() <= QUEUE_MAX);
        }
    }
}
