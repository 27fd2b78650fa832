//! `/dev/kvm`, and what it must be able to do.

use kvm_ioctls::{Cap, Kvm};

use crate::config::KvmCapability;
use crate::error::{Error, Result};

/// Opens `/dev/kvm` and checks that it has what a microVM needs, as far as a CPU template does not say otherwise.
pub(crate) fn open(template: &[KvmCapability]) -> Result<Kvm> {
    let kvm = Kvm::new().map_err(|e| Error::NoKvm(std::io::Error::from_raw_os_error(e.errno())))?;
    // Documentation/virt/kvm/api.rst, section 4.1: any other version is to be refused.
    if kvm.get_api_version() != 12 {
        return Err(Error::Lacking("version 12 of its interface"));
    }
    for (capability, name) in [
        (Cap::Irqchip, "an interrupt controller in the kernel"),
        (Cap::UserMemory, "guest memory of the monitor's"),
        (Cap::Irqfd, "irqfd"),
        (Cap::Ioeventfd, "ioeventfd"),
        (Cap::ExtCpuid, "CPUID tables"),
        (Cap::MpState, "the state of processors that wait"),
    ] {
        // KVM's number of it.
        let excused = template.contains(&KvmCapability::NotNeeded(capability as u32));
        if !excused && !kvm.check_extension(capability) {
            return Err(Error::Lacking(name));
        }
    }
    for asked in template {
        if let KvmCapability::Needed(number) = *asked
            && kvm.check_extension_raw(number.into()) <= 0
        {
            return Err(Error::Template(format!("capability {number}")));
        }
    }
    Ok(kvm)
}
