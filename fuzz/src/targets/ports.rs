//! COM1, the i8042 and the power registers: accesses of any width to any port around them, while somebody types.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_vmm::exit::Exit;
use berth_vmm::fuzzing::Ports;

use crate::input::Input;

/// The first ports of keyboard, COM1 and power registers.
const FIRST: [u16; 3] = [0x60, 0x3f8, berth_vmm::arch::x86_64::layout::POWER_PORT];
/// A snapshot never has more of either: input that waits, a FIFO, a few keys.
const SAVED_MAX: usize = 4096 + 64 + 64;

/// Counts what the guest says; now and then nobody takes it.
struct Terminal {
    said: Arc<AtomicUsize>,
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let said = self.said.fetch_add(bytes.len(), Ordering::Relaxed);
        if said % 7 == 6 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Accesses to ports.
pub(super) fn ports(bytes: &[u8]) {
    let said = Arc::new(AtomicUsize::new(0));
    let ports = Ports::new(Box::new(Terminal { said: said.clone() })).expect("chips");
    let mut input = Input::new(bytes);
    let mut writes = 0;
    while !input.is_empty() {
        let how = input.byte();
        let port = input.one_of(&FIRST) + u16::from(how >> 4);
        let width = if how & 8 != 0 { 1 } else { input.below(9) };
        match how & 7 {
            0 => {
                let typed = vec![input.byte(); usize::from(input.u16())];
                let taken = ports.input(&typed);
                assert!(taken <= typed.len());
            }
            1 => {
                ports.ctrl_alt_del();
            }
            2..=4 => {
                let mut data = vec![0xaa; width];
                ports.read(port, &mut data);
            }
            _ => {
                writes += 1;
                let exit = ports.write(port, &vec![input.byte(); width]);
                // Registers that end the machine are a byte wide.
                assert!(exit.is_none() || width == 1, "{exit:?} by {width} bytes");
                assert!(matches!(exit, None | Some(Exit::Reset | Exit::PoweredOff)));
            }
        }
    }
    for saved in ports.save() {
        assert!(saved.len() <= SAVED_MAX, "a chip holds {} bytes", saved.len());
    }
    assert!(
        said.load(Ordering::Relaxed) <= writes,
        "the guest said more than it wrote"
    );
}
