//! What the guest's processors say of themselves: what KVM supports, and who each one is.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

use crate::error::{Error, Result};

const FEATURES: u32 = 1;
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];
/// AMD's: extended local APIC id and node.
const AMD_TOPOLOGY: u32 = 0x8000_001e;
/// What KVM does for guests that know it (Documentation/virt/kvm/x86/cpuid.rst).
const KVM_FEATURES: u32 = 0x4000_0001;
/// Page faults of the host that a guest waits for without its processor: `ASYNC_PF`, `_VMEXIT` and `_INT`. The promise that a page will
/// come is KVM's and in no register, so that who waits for one in a snapshot waits for ever.
const EAX_ASYNC_FAULTS: u32 = 1 << 4 | 1 << 10 | 1 << 14;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;

/// What KVM supports on this host, the same for each processor but for what [`of_vcpu`] sets.
pub(crate) fn supported(kvm: &Kvm) -> Result<CpuId> {
    let mut cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(Error::kvm("ask KVM what processors it can offer"))?;
    normalise(&mut cpuid, kvm.check_extension(Cap::TscDeadlineTimer));
    Ok(cpuid)
}

fn normalise(cpuid: &mut CpuId, tsc_deadline: bool) {
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            FEATURES => {
                entry.ecx |= ECX_HYPERVISOR;
                // KVM leaves this bit to us: the interrupt controller is its own, so it can do it whenever it says so.
                if tsc_deadline {
                    entry.ecx |= ECX_TSC_DEADLINE;
                }
            }
            KVM_FEATURES => entry.eax &= !EAX_ASYNC_FAULTS,
            _ => {}
        }
    }
}

/// The same for processor `id` of `count`, each a core of its own in one package.
pub(crate) fn of_vcpu(mut cpuid: CpuId, id: u8, count: u8) -> CpuId {
    // Width of a core's number: the id is all of the APIC id (Intel SDM 2A, CPUID leaf 0BH).
    let core_bits = u8::BITS - count.saturating_sub(1).leading_zeros();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            FEATURES => {
                entry.ebx = entry.ebx & 0xffff | u32::from(count) << 16 | u32::from(id) << 24;
                // HTT says that the count is to be read.
                entry.edx = if count > 1 {
                    entry.edx | 1 << 28
                } else {
                    entry.edx & !(1 << 28)
                };
            }
            function if TOPOLOGY.contains(&function) => {
                let (shift, processors, kind) = match entry.index {
                    0 => (0, 1, 1),
                    1 => (core_bits, u32::from(count), 2),
                    _ => (0, 0, 0),
                };
                (entry.eax, entry.ebx) = (shift, processors);
                entry.ecx = kind << 8 | entry.index & 0xff;
                entry.edx = id.into();
            }
            AMD_TOPOLOGY => {
                entry.eax = id.into();
                // One thread in this core; the core's number.
                entry.ebx = id.into();
                entry.ecx = 0;
            }
            _ => {}
        }
    }
    cpuid
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;

    #[test]
    fn no_guest_waits_for_what_a_snapshot_does_not_hold() {
        let entry = kvm_cpuid_entry2 {
            function: KVM_FEATURES,
            eax: u32::MAX,
            ..kvm_cpuid_entry2::default()
        };
        let mut table = CpuId::from_entries(&[entry]).unwrap();
        normalise(&mut table, true);
        assert_eq!(table.as_slice()[0].eax, 0xffff_bbef);
    }

    #[test]
    fn each_processor_is_told_who_it_is() {
        let entry = |function, index| kvm_cpuid_entry2 {
            function,
            index,
            ..kvm_cpuid_entry2::default()
        };
        let table = CpuId::from_entries(&[entry(1, 0), entry(0xb, 0), entry(0xb, 1)]).unwrap();
        let third = of_vcpu(table, 2, 4);
        let third = third.as_slice();
        assert_eq!(third[0].ebx >> 24, 2);
        assert_eq!(third[0].ebx >> 16 & 0xff, 4);
        assert_eq!(third[0].edx >> 28 & 1, 1);
        assert_eq!((third[1].eax, third[1].edx), (0, 2));
        assert_eq!((third[2].eax, third[2].ebx, third[2].ecx >> 8), (2, 4, 2));
    }
}
