//! Every check of the specification, one list; what passes becomes a [`ContainerSpec`].

/// A checked container: what the check proved to be there is no `Option` any more.
#[derive(Debug)]
pub struct ContainerSpec {}
