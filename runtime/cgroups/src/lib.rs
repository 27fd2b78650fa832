//! cgroup v1, hybrid and v2 behind one handle.
