//! berth-guest in microVMs of its own, spoken to as the engine does. Runs in the test VM, where `vm_guest` puts it together with
//! what it needs.

mod exec;
mod fixture;
mod hostile;
mod life;
mod limits;
mod network;
mod restored;
mod streams;
mod terminal;
