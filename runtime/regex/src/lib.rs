//! What oci-spec uses of `regex`, done by `regex-lite`.
//!
//! oci-spec matches one short pattern against one field, `process.execCPUAffinity`, which berth refuses. The engine that `regex`
//! brings for that, with its tables of Unicode, is a megabyte of every static binary of ours.

pub use regex_lite::Regex;
