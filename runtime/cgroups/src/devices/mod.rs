//! Which device nodes may be made and opened: rules to v1 control files, rules to a v2 BPF program.
