//! Resolving beneath.
