//! Names: `ROOT/names/<name>` holds the id, and link(2) makes sure that one name has one holder.
//!
//! Nobody waits until the id is on the disk. A power cut may leave the name empty, and then the containers' records say whose it
//! is.

use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;

use crate::error::{At, Error, Result};
use crate::id::{ContainerId, ContainerName, fill_random};
use crate::paths::Paths;
use crate::record;

/// Who has the name, if anybody.
pub(crate) fn holder(paths: &Paths, name: &ContainerName) -> Result<Option<ContainerId>> {
    let path = paths.names().join(name.as_str());
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim_end().parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => recorded(paths, name),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// Which container's record has the name.
fn recorded(paths: &Paths, name: &ContainerName) -> Result<Option<ContainerId>> {
    let has = |id: &ContainerId| record::config(paths, id).is_ok_and(|config| config.name == *name);
    Ok(record::ids(paths)?.into_iter().find(has))
}

/// Takes the name for `id`, whose directory exists already: a name whose holder has no directory is left over from a
/// crash and taken over.
///
/// # Errors
///
/// [`Error::NameTaken`] naming the holder.
pub(crate) fn take(paths: &Paths, name: &ContainerName, id: &ContainerId) -> Result<()> {
    let path = paths.names().join(name.as_str());
    // Dot first: no name starts with one, so the file aside is never taken for a name.
    let aside = paths.names().join(format!(".{id}"));
    let mut file = std::fs::OpenOptions::new();
    let mut file = file
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .at("create", &aside)?;
    std::io::Write::write_all(&mut file, id.as_str().as_bytes()).at("write", &aside)?;
    let linked = loop {
        match std::fs::hard_link(&aside, &path) {
            Ok(()) => break Ok(()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => match holder(paths, name)? {
                Some(holder) if paths.container(&holder).is_dir() => {
                    break Err(Error::NameTaken {
                        name: name.to_string(),
                        holder: holder.to_string(),
                    });
                }
                stale => release_stale(paths, name, stale.as_ref())?,
            },
            Err(e) => break Err(Error::io("link", &path, e)),
        }
    };
    std::fs::remove_file(&aside).at("remove", &aside)?;
    linked
}

/// Removes a name nobody holds. Two processes may find the same stale name; the lock keeps the slower one from
/// removing what the faster one has taken meanwhile.
fn release_stale(paths: &Paths, name: &ContainerName, stale: Option<&ContainerId>) -> Result<()> {
    let lock = paths.locks().join("names");
    let file = std::fs::File::create(&lock).at("create", &lock)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).at("lock", &lock)?;
    if holder(paths, name)?.as_ref() == stale {
        release(paths, name)?;
    }
    Ok(())
}

/// Gives the name up. It is fine when nobody has it.
pub(crate) fn release(paths: &Paths, name: &ContainerName) -> Result<()> {
    let path = paths.names().join(name.as_str());
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// A made-up name, `adjective_noun`; with `attempt` above 0 a digit follows.
pub(crate) fn random(attempt: u32) -> Result<ContainerName> {
    let mut bytes = [0u8; 4];
    fill_random(&mut bytes).at("read", "/dev/urandom")?;
    let pick =
        |words: &[&'static str], a: u8, b: u8| words[usize::from(u16::from_le_bytes([a, b])) % words.len()];
    let (adjective, noun) = (
        pick(ADJECTIVES, bytes[0], bytes[1]),
        pick(NOUNS, bytes[2], bytes[3]),
    );
    let text = if attempt == 0 {
        format!("{adjective}_{noun}")
    } else {
        format!("{adjective}_{noun}{attempt}{}", bytes[0])
    };
    Ok(text.parse().expect("the words are letters"))
}

const ADJECTIVES: &[&str] = &[
    "able", "amber", "brave", "brisk", "calm", "candid", "civil", "clear", "clever", "coastal", "crisp",
    "daring", "deep", "eager", "early", "even", "fair", "fast", "firm", "fluent", "fond", "frank", "fresh",
    "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "keen", "kind", "lively", "loyal",
    "lucid", "mellow", "merry", "modest", "neat", "noble", "patient", "placid", "plucky", "polite", "proud",
    "quick", "quiet", "rapid", "ready", "robust", "serene", "sharp", "silent", "silver", "simple", "smooth",
    "sober", "solid", "steady", "sturdy", "subtle", "sunny", "swift", "tidy", "trusty", "upbeat", "vivid",
    "warm", "wise", "witty", "young", "zesty",
];

const NOUNS: &[&str] = &[
    "anchor",
    "bay",
    "beacon",
    "boat",
    "bollard",
    "bow",
    "brig",
    "buoy",
    "cabin",
    "canal",
    "cape",
    "captain",
    "cargo",
    "channel",
    "chart",
    "clipper",
    "coast",
    "compass",
    "coral",
    "cove",
    "crane",
    "crew",
    "current",
    "cutter",
    "deck",
    "delta",
    "dinghy",
    "dock",
    "dolphin",
    "estuary",
    "ferry",
    "fjord",
    "fleet",
    "frigate",
    "galley",
    "gull",
    "harbour",
    "haven",
    "helm",
    "heron",
    "hull",
    "inlet",
    "island",
    "jetty",
    "keel",
    "ketch",
    "lagoon",
    "lantern",
    "lighthouse",
    "lock",
    "mast",
    "mooring",
    "oar",
    "orca",
    "otter",
    "pelican",
    "pier",
    "pilot",
    "port",
    "quay",
    "reef",
    "rigging",
    "rudder",
    "sail",
    "schooner",
    "seal",
    "sextant",
    "shoal",
    "skiff",
    "sloop",
    "spray",
    "starboard",
    "strait",
    "swell",
    "tide",
    "tiller",
    "trawler",
    "tug",
    "wharf",
    "yacht",
];
