//! Resource use of a container.
