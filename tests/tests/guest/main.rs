//! berth-guest in microVMs of its own, spoken to as the engine will. Runs in the test VM, where `vm_guest` puts it together with
//! what it needs; elsewhere every test says that it is skipped.

mod exec;
mod fixture;
mod hostile;
mod life;
mod limits;
mod streams;
mod terminal;
