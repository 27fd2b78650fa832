//! x86-64: where everything lies, and the state a kernel expects its processors in.

pub mod layout;

pub(crate) mod acpi;
pub(crate) mod chips;
pub(crate) mod cpuid;
pub(crate) mod generation;
mod memory_map;
pub(crate) mod processor;
pub(crate) mod pvh;
pub(crate) mod registers;
pub(crate) mod reset_vector;
pub(crate) mod template;
pub(crate) mod vm_clock;
pub(crate) mod zero_page;
