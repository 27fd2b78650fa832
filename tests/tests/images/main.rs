//! The image verbs of `berth` against Debian's docker-registry, with skopeo and umoci on the other side.

mod archives;
mod crash;
mod double;
mod errors;
mod faults;
mod fixture;
mod login;
mod store;
mod tags;
mod tls;
mod transfer;
