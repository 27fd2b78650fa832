//! System calls that the standard library and rustix lack, one typed function per use.
