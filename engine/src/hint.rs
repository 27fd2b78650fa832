//! What a user can do about an error: one line for the failures that have an answer, nothing for the others.
//!
//! A table over the error types of every part, because the answers are berth's verbs and flags, which the parts do not know.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use berth_images::registry::Error as Registry;

use crate::container::Status;
use crate::error::Error;
use crate::{kernel, network, volumes};

/// What can be done about `error`, from the first link of its chain that has an answer.
pub fn hint(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = None
            .or_else(|| known(error).and_then(engine))
            .or_else(|| known(error).and_then(volume))
            .or_else(|| known(error).and_then(kernels))
            .or_else(|| known(error).and_then(networks))
            .or_else(|| known(error).and_then(image))
            .or_else(|| known(error).and_then(registry))
            .or_else(|| known(error).and_then(runtime))
            .or_else(|| known(error).and_then(kernel));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

/// The error as a `T`, boxed or not: a boxed source is an error of its own type.
fn known<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let boxed = || error.downcast_ref::<Box<T>>().map(Box::as_ref);
    error.downcast_ref().or_else(boxed)
}

fn engine(error: &Error) -> Option<String> {
    Some(match error {
        Error::Start { hint, .. } => return hint.clone(),
        Error::NoSuchContainer(_) => "`berth ps --all` lists the containers there are".into(),
        Error::Ambiguous(_) => "give more digits of the id, or the name".into(),
        Error::NameTaken { name, .. } => {
            format!("choose another --name, or remove that container with `berth rm {name}`")
        }
        Error::Wrong { verb, name, status } => return wrong(verb, name, *status),
        Error::NoCommand(_) => "name one after the image: `berth run IMAGE COMMAND`".into(),
        Error::CommandNotFound { .. } => {
            "give its path inside the container, or add its directory with --env PATH=…".into()
        }
        Error::CommandNotExecutable { .. } => {
            "it must be a file with the x bit, for this machine's architecture, and its #! interpreter must be in the image"
                .into()
        }
        Error::ShimDied(_) => "`berth ps --all` cleans up after it; the kernel's log says whether it was killed".into(),
        Error::ShimSilent { name } => format!("`berth rm --force {name}` ends the container without it"),
        Error::NotOurs { .. } => "name a directory of its own with --root or --state".into(),
        Error::Damaged { .. } => "remove the container with `berth rm --force`, or put the file back".into(),
        _ => return None,
    })
}

fn wrong(verb: &str, name: &str, status: Status) -> Option<String> {
    Some(match (verb, status) {
        ("remove", Status::Running | Status::Restarting) => {
            format!("stop it first with `berth stop {name}`, or use --force")
        }
        (_, Status::Paused) => format!("thaw it with `berth unpause {name}`"),
        (_, Status::Created | Status::Exited) => format!("start it with `berth start {name}`"),
        _ => return None,
    })
}

fn volume(error: &volumes::Error) -> Option<String> {
    Some(match error {
        volumes::Error::Missing(_) => "`berth volume ls` lists the volumes there are".into(),
        volumes::Error::InUse { .. } => "remove the containers first, or use `berth rm --volumes`".into(),
        _ => return None,
    })
}

fn kernels(error: &kernel::Error) -> Option<String> {
    use kernel::Error;
    Some(match error {
        Error::Missing(_) => "`berth kernel ls` lists the kernels there are".into(),
        Error::Taken(name) => format!("choose another name, or remove that kernel with `berth kernel rm {name}`"),
        Error::IsDefault(_) => {
            "make another the default with `berth kernel default NAME`, or the host's with --host".into()
        }
        Error::NoDefault { .. } => {
            "install Debian's with `apt install linux-image-cloud-amd64`, or register one with `berth kernel add`".into()
        }
        Error::OtherRelease { expected, .. } => format!("its modules are in a directory called {expected}"),
        Error::Guest { .. } => {
            "berth-guest comes with berth and belongs beside it; BERTH_GUEST=/path names another".into()
        }
        _ => return None,
    })
}

fn networks(error: &network::Error) -> Option<String> {
    use network::Error as E;
    Some(match error {
        E::NotFound(_) => {
            "`berth network ls` lists the networks there are, `berth network create` makes one".into()
        }
        E::InUse { .. } => "remove those containers, or take them off with `berth network disconnect`".into(),
        E::Overlap { .. } | E::Subnet { .. } => {
            "choose another --subnet, or leave it out and let berth choose".into()
        }
        E::PoolExhausted(_) => {
            "remove networks nobody uses with `berth network prune`, or give a --subnet".into()
        }
        E::Exhausted { .. } => {
            "remove containers, or create a network with a larger --subnet for the next ones".into()
        }
        E::AddressTaken { .. } | E::AddressOutside { .. } => "choose another --ip, or leave it out".into(),
        E::PortTaken { port, .. } => format!(
            "choose another host port, or see who has this one: `ss -lntup 'sport = :{port}'`, `berth ps`"
        ),
        E::Nft { source, .. } if unknown_to_kernel(source) => {
            "the kernel needs nf_tables with nft_nat, nft_masq, nft_fib and nf_tables_bridge".into()
        }
        E::Link { source, .. } if unknown_to_kernel(source) => "the kernel needs bridge and veth".into(),
        E::File { path, .. } if path == Path::new(berth_sys::tap::DEVICE) => {
            "a microVM's network needs the kernel's tun: `modprobe tun`".into()
        }
        _ => return None,
    })
}

fn unknown_to_kernel(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT)
    )
}

fn image(error: &berth_images::Error) -> Option<String> {
    use berth_images::Error as E;
    Some(match error {
        E::NotFound(_) => "`berth images` lists the images there are, `berth pull` brings one".into(),
        E::NotPulled(name) => format!("`berth pull {name}`, or another --pull"),
        E::AmbiguousId(_) => "give more digits of the id, or the name".into(),
        E::InUse { container, .. } => {
            format!("remove the container first with `berth rm {container}`, or use --force")
        }
        E::NoArchive => "a tar of a root filesystem is brought in with `berth import`".into(),
        E::SeveralNames(_) => "name the one to remove, or remove all of them with --force".into(),
        E::NoPlatform { .. } => "choose one of those with --platform".into(),
        E::MissingBlob(_) | E::MissingLayer { .. } => "pull or load the image again".into(),
        _ => return None,
    })
}

fn registry(error: &Registry) -> Option<String> {
    Some(match error {
        Registry::NotFound(_) | Registry::CredentialsMissing(_) => {
            "check the name and tag; for a private image log in with `berth login REGISTRY`".into()
        }
        Registry::CredentialsRefused(_) => "log in again with `berth login REGISTRY`".into(),
        error if error.is_hung_up() => "if the registry wants a certificate of its clients, put one into \
             /etc/docker/certs.d/REGISTRY/ as NAME.cert and NAME.key"
            .into(),
        Registry::NoTls { .. } => "a registry without TLS must be listed in /etc/berth/config.json: \
             {\"registries\": {\"insecure\": [\"HOST:PORT\"]}}"
            .into(),
        Registry::Unreachable { .. } => {
            "check the name and port of the registry, the way to it, and that it runs".into()
        }
        Registry::Transport { url, .. } if url.starts_with("https:") => {
            "check the name of the registry and the way to it".into()
        }
        Registry::Transport { .. } | Registry::Stalled { .. } | Registry::Truncated { .. } => {
            "try again: what has come so far is kept".into()
        }
        Registry::Size { .. } | Registry::DigestMismatch { .. } => {
            "the registry, or something between, does not send what it promised: try again, or tell its owner"
                .into()
        }
        Registry::RealmInsecure { .. } => {
            "credentials are sent over HTTPS alone; list the registry as insecure to allow it".into()
        }
        _ => return None,
    })
}

fn runtime(error: &berth_runtime::Error) -> Option<String> {
    use berth_runtime::Error as E;
    Some(match error {
        E::InitOom { .. } => "give it more with --memory".into(),
        _ => return None,
    })
}

fn kernel(error: &io::Error) -> Option<String> {
    Some(match error.raw_os_error()? {
        libc::ENOSPC => {
            "the disk is full: `berth system df` shows what berth keeps there, `berth system prune` removes \
                         what nobody uses"
                .into()
        }
        libc::EPERM | libc::EACCES if !rustix::process::geteuid().is_root() => "run berth as root".into(),
        libc::EMFILE | libc::ENFILE => "raise the limit of open files (ulimit -n)".into(),
        libc::EROFS => "berth keeps its files below --root and --state, which must be writable".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_that_has_an_answer_gives_it() {
        let taken = Error::Network {
            id: "c".into(),
            source: Box::new(network::Error::PortTaken {
                ip: std::net::Ipv4Addr::LOCALHOST.into(),
                port: 8080,
                protocol: network::Protocol::Tcp,
            }),
        };
        assert!(hint(&taken).unwrap().contains("sport = :8080"));
        let full = Error::io("write", "/x", io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(hint(&full).unwrap().contains("disk is full"));
        let other = Error::io("write", "/x", io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(hint(&other), None);
    }

    #[test]
    fn the_shim_s_answer_reaches_the_user() {
        let error = Error::Start {
            name: "web".into(),
            why: "port 80/tcp on 0.0.0.0 is taken".into(),
            hint: Some("choose another".into()),
        };
        assert_eq!(hint(&error).as_deref(), Some("choose another"));
    }
}
