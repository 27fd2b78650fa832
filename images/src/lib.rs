//! A reference on a registry becomes mounts on disk.
