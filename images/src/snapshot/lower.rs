//! Looking a name up in the layers below, as overlayfs would show it.
