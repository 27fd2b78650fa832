//! The configuration file: what is read is written as it is read again, and fits together.

use berth_vmm::config::{Settings, VCPUS_MAX};

/// What is true of every configuration that was taken.
pub(super) fn holds(settings: &Settings) {
    let written = serde_json::to_string(settings).expect("what was read can be written");
    let read: Settings = serde_json::from_str(&written).expect("what was written can be read");
    let mut again = Settings::default();
    again.change(|new| *new = read).expect("what fitted still fits");
    // Names that mean nothing any more are read and not written.
    let twice = serde_json::to_string(&again).expect("as the first time");
    assert_eq!(twice, written, "what was written is read as something else");
    let machine = &settings.machine_config;
    assert!((1..=VCPUS_MAX).contains(&machine.vcpu_count) && machine.mem_size_mib > 0);
    let Ok(config) = settings.complete() else { return };
    assert!(!config.cmdline.contains('\0'), "a command line ends at its zero");
    assert!(config.cmdline.len() < berth_vmm::arch::x86_64::layout::CMDLINE_MAX);
}

/// A configuration file.
pub(super) fn config(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<Settings>(bytes) else {
        return;
    };
    let mut settings = Settings::default();
    if settings.change(|new| *new = read).is_ok() {
        holds(&settings);
    }
}
