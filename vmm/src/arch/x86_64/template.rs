//! A CPU template laid over what KVM offers: bits of CPUID leaves and machine registers.
//!
//! What a processor must be told of itself (who it is, how many there are) and the registers of the boot protocol are set
//! afterwards, over the template.

use kvm_bindings::{CpuId, Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use crate::config::{CpuConfig, CpuidRegister, MsrModifier};
use crate::error::{Error, Result};

/// Changes leaves of the table every processor gets.
///
/// # Errors
///
/// [`Error::Template`] for a leaf that KVM does not offer: the guest would not see it.
pub(crate) fn change_cpuid(template: &CpuConfig, cpuid: &mut CpuId) -> Result<()> {
    for change in &template.cpuid_modifiers {
        let entry = cpuid
            .as_mut_slice()
            .iter_mut()
            .find(|entry| (entry.function, entry.index) == (change.leaf.0, change.subleaf.0))
            .ok_or_else(|| {
                Error::Template(format!("CPUID leaf {} subleaf {}", change.leaf, change.subleaf))
            })?;
        entry.flags = change.flags;
        for modifier in &change.modifiers {
            let register = match modifier.register {
                CpuidRegister::Eax => &mut entry.eax,
                CpuidRegister::Ebx => &mut entry.ebx,
                CpuidRegister::Ecx => &mut entry.ecx,
                CpuidRegister::Edx => &mut entry.edx,
            };
            *register = modifier.bitmap.apply(*register);
        }
    }
    Ok(())
}

/// Changes machine registers of a processor, whose CPUID table is set: what it says decides which there are.
///
/// # Errors
///
/// [`Error::Template`] for a register that KVM does not have, or that it does not let be changed so.
pub(crate) fn change_msrs(template: &CpuConfig, vcpu: &VcpuFd) -> Result<()> {
    // One at a time: KVM stops at the first it does not know, and says only how many it did.
    template.msr_modifiers.iter().try_for_each(|change| {
        let refused = || Error::Template(format!("machine register {}", change.addr));
        let value = change.bitmap.apply(read(vcpu, change)?.ok_or_else(refused)?);
        let set = vcpu
            .set_msrs(&register(change.addr.0, value))
            .map_err(Error::kvm("set a processor's machine registers"))?;
        (set == 1).then_some(()).ok_or_else(refused)
    })
}

/// The register's value; `None` when KVM does not know it.
fn read(vcpu: &VcpuFd, change: &MsrModifier) -> Result<Option<u64>> {
    let mut value = register(change.addr.0, 0);
    let count = vcpu
        .get_msrs(&mut value)
        .map_err(Error::kvm("read a processor's machine registers"))?;
    Ok((count == 1).then(|| value.as_slice()[0].data))
}

fn register(index: u32, data: u64) -> Msrs {
    Msrs::from_entries(&[kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    }])
    .expect("one entry fits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;

    fn template(text: &str) -> CpuConfig {
        serde_json::from_str(text).unwrap()
    }

    fn leaf(leaf: &str, subleaf: &str, register: &str, bitmap: &str) -> CpuConfig {
        template(&format!(
            r#"{{"cpuid_modifiers": [{{"leaf": "{leaf}", "subleaf": "{subleaf}", "flags": 1,
                "modifiers": [{{"register": "{register}", "bitmap": "{bitmap}"}}]}}]}}"#
        ))
    }

    #[test]
    fn a_leaf_changes_in_one_register_alone() {
        let entry = |function, index| kvm_cpuid_entry2 {
            function,
            index,
            eax: 0xff,
            ebx: 0xff,
            ..kvm_cpuid_entry2::default()
        };
        let mut table = CpuId::from_entries(&[entry(1, 0), entry(7, 0), entry(7, 1)]).unwrap();
        change_cpuid(&leaf("0x7", "0x1", "ebx", "0b1_0000_xxxx"), &mut table).unwrap();
        let [one, seven, changed] = table.as_slice() else {
            panic!()
        };
        assert_eq!((one.ebx, seven.ebx, changed.ebx), (0xff, 0xff, 0x10f));
        assert_eq!((changed.eax, changed.flags), (0xff, 1));
        let error = change_cpuid(&leaf("0x7", "0x2", "eax", "0b1"), &mut table).unwrap_err();
        assert!(
            error.to_string().contains("CPUID leaf 0x7 subleaf 0x2"),
            "{error}"
        );
    }

    #[test]
    fn registers_are_changed_or_named() {
        let Ok(kvm) = kvm_ioctls::Kvm::new() else {
            eprintln!("skipped: no /dev/kvm");
            return;
        };
        let vm = kvm.create_vm().unwrap();
        vm.create_irq_chip().unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        // The first memory type of the page attribute table (Intel SDM 3A §11.12.2).
        let pat = template(r#"{"msr_modifiers": [{"addr": "0x277", "bitmap": "0b00000110"}]}"#);
        let before = read(&vcpu, &pat.msr_modifiers[0]).unwrap().unwrap();
        change_msrs(&pat, &vcpu).unwrap();
        let after = read(&vcpu, &pat.msr_modifiers[0]).unwrap().unwrap();
        assert_eq!((after & 0xff, after >> 8), (6, before >> 8));
        let nothing = template(r#"{"msr_modifiers": [{"addr": "0xdead", "bitmap": "0b1"}]}"#);
        let error = change_msrs(&nothing, &vcpu).unwrap_err();
        assert!(error.to_string().contains("machine register 0xdead"), "{error}");
    }
}
