//! The machine's process, from its birth: it lets go of what is the keeper's, makes the machine in its jail, and runs it.
#![allow(unsafe_code)] // descriptors of the keeper's are closed by number

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use berth_sys::fds;
use rustix::process::Signal;

use super::door::Door;
use super::link::Orders;
use crate::control::{Controller, Plan};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::jail::Jail;
use crate::logger;
use crate::run::{self, Clients};

/// Makes the machine and runs it until the guest ends; the exit status. `link` is the machine's end of the pair.
pub(super) fn live(controller: &mut Controller, plan: Plan, link: OwnedFd, door: Door) -> u8 {
    // Above are the keeper's frames, which are not to be run a second time.
    let lived = catch_unwind(AssertUnwindSafe(|| attempt(controller, plan, link, door)));
    match lived {
        Ok(Ok(exit)) => exit.status(),
        Ok(Err(e)) => e.exit().status(),
        Err(_) => Exit::Failed.status(),
    }
}

fn attempt(controller: &mut Controller, plan: Plan, link: OwnedFd, door: Door) -> Result<Exit> {
    let mut controller = controller.moved_out()?;
    let kept = separate(&controller, &plan, [link.as_fd(), door.as_fd()]);
    let mut orders = Orders::of(link);
    let begun = kept.and_then(|()| controller.begin(plan, Some(door), &mut || orders.enter_cgroup()));
    if let Err(e) = begun {
        // Who started it tells.
        orders.begun(&Err(e.told()))?;
        return Err(e);
    }
    orders.begun(&Ok(()))?;
    let ended = run::run(controller, Clients::Keeper(orders), io::stdin().as_fd());
    ended.inspect_err(|e| {
        let text = e.told();
        log::error!("{text:?}");
        eprintln!("berth-vmm: {text}");
    })
}

/// Ends with the keeper, and has nothing of its clients'.
fn separate(controller: &Controller, plan: &Plan, links: [BorrowedFd<'_>; 2]) -> Result<()> {
    let failed = |operation| move |source: io::Error| Error::Events { operation, source };
    // A keeper that has gone by now is heard of over the link.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| failed("end with the process that started the machine")(e.into()))?;
    let mut kept: Vec<_> = controller
        .descriptors()
        .chain(logger::descriptor())
        .chain(plan.descriptor())
        .chain([0, 1, 2])
        .chain(links.map(|link| link.as_raw_fd()))
        .collect();
    // SAFETY: the keeper's server, the one owner of the others, is in frames that this process never goes back to.
    unsafe { fds::close_all_but(&mut kept) }.map_err(failed("close the keeper's descriptors"))?;
    controller.jail().map_or(Ok(()), Jail::enter_network)
}
