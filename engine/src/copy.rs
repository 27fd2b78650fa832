//! Files into and out of a container.
