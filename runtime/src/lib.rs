//! The OCI runtime as a library.
