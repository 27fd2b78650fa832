//! Keeps a machine of KVM's in the test VM, without memory or CPUs, until it is killed.
//!
//! The kernel's scheduler has a hook for KVM that is patched into its code when the first machine comes and out of it when
//! the last goes. QEMU before 8.2 translates code that another CPU changes at that moment, and goes on running what it was:
//! both CPUs of the test VM then take breakpoint after breakpoint (seen with its monitor, in `__schedule`), or it resets. With
//! one machine that stays, none of those that tests make is the first or the last.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _machine = kvm_ioctls::Kvm::new()?.create_vm()?;
    loop {
        std::thread::park();
    }
}
