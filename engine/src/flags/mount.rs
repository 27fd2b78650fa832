//! `-v`, `--mount` and `--tmpfs`.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{InvalidFlag, MemorySize};

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host; with `create` it is made as a directory when missing, as `-v` does and `--mount` does not.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Make a missing source.
        create: bool,
        /// Take the mounts below the source along; docker's default.
        recursive: bool,
    },
    /// A named volume; without a name an anonymous one.
    Volume {
        /// Its name.
        name: Option<String>,
        /// Leave an empty volume empty instead of copying the image's content.
        nocopy: bool,
    },
    /// Memory.
    Tmpfs {
        /// Bytes at most.
        size: Option<MemorySize>,
        /// Mode of its root, 01777 when not given.
        mode: Option<u32>,
        /// Further mount options, as for mount(8).
        options: Vec<String>,
    },
}

/// Mount propagation of a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the words of mount_namespaces(7)
pub enum Propagation {
    Shared,
    Slave,
    Private,
    Rshared,
    Rslave,
    #[default]
    Rprivate,
}

impl Propagation {
    /// The option's name.
    pub fn name(self) -> &'static str {
        match self {
            Propagation::Shared => "shared",
            Propagation::Slave => "slave",
            Propagation::Private => "private",
            Propagation::Rshared => "rshared",
            Propagation::Rslave => "rslave",
            Propagation::Rprivate => "rprivate",
        }
    }

    fn parse(s: &str) -> Option<Self> {
        use Propagation::{Private, Rprivate, Rshared, Rslave, Shared, Slave};
        [Shared, Slave, Private, Rshared, Rslave, Rprivate]
            .into_iter()
            .find(|p| p.name() == s)
    }
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// What is mounted.
    pub kind: MountKind,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Not writable.
    pub read_only: bool,
    /// For binds.
    pub propagation: Propagation,
}

fn target(s: &str, whole: &str) -> Result<PathBuf, InvalidFlag> {
    let path = Path::new(s);
    let bad = |why: &str| Err(InvalidFlag::new("mount", whole, why));
    if !path.is_absolute() {
        return bad("the path inside must be absolute");
    }
    if path.components().any(|c| c == Component::ParentDir) || s.contains('\0') {
        return bad("the path inside contains '..'");
    }
    if path == Path::new("/") {
        return bad("the path inside can't be '/'");
    }
    Ok(path.components().collect())
}

/// `-v [SOURCE:]TARGET[:OPTIONS]`: a source that begins with `/`, `./` or `../` is a path of the host, any other a volume.
pub fn parse_volume(s: &str) -> Result<MountSpec, InvalidFlag> {
    let bad = |why: &str| InvalidFlag::new("volume", s, why);
    let parts: Vec<&str> = s.split(':').collect();
    let (source, inside, options) = match parts[..] {
        [inside] => (None, inside, ""),
        [source, inside] => (Some(source), inside, ""),
        [source, inside, options] => (Some(source), inside, options),
        _ => return Err(bad("expected [source:]target[:options]")),
    };
    let mut spec = MountSpec {
        kind: match source {
            None => MountKind::Volume {
                name: None,
                nocopy: false,
            },
            Some(path) if path.starts_with('/') => MountKind::Bind {
                source: path.into(),
                create: true,
                recursive: true,
            },
            Some("") => return Err(bad("the source is empty")),
            // As docker: from the working directory of whoever says it.
            Some(path)
                if path == "." || path == ".." || path.starts_with("./") || path.starts_with("../") =>
            {
                MountKind::Bind {
                    source: std::path::absolute(path)
                        .map_err(|e| bad(&format!("no working directory: {e}")))?,
                    create: true,
                    recursive: true,
                }
            }
            Some(name) if name.contains('/') || name.starts_with('.') => {
                return Err(bad(
                    "a source is a path that begins with / or ./, or a volume's name",
                ));
            }
            Some(name) => MountKind::Volume {
                name: Some(name.to_owned()),
                nocopy: false,
            },
        },
        target: target(inside, s)?,
        read_only: false,
        propagation: Propagation::default(),
    };
    let mut access = None;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match (option, &mut spec.kind) {
            ("ro" | "rw", _) if access.is_some_and(|other| other != option) => {
                return Err(bad("it cannot be both ro and rw"));
            }
            ("ro", _) => (spec.read_only, access) = (true, Some(option)),
            ("rw", _) => access = Some(option),
            // SELinux labels: nothing to relabel where SELinux is off, as docker does there.
            ("z" | "Z" | "cached" | "delegated" | "consistent", _) => {}
            ("nocopy", MountKind::Volume { nocopy, .. }) => *nocopy = true,
            ("bind", MountKind::Bind { recursive, .. }) => *recursive = false,
            ("rbind", MountKind::Bind { recursive, .. }) => *recursive = true,
            (_, MountKind::Bind { .. }) => {
                spec.propagation = Propagation::parse(option).ok_or_else(|| bad("unknown option"))?;
            }
            _ => return Err(bad("unknown option")),
        }
    }
    Ok(spec)
}

/// `--tmpfs TARGET[:OPTIONS]`.
pub fn parse_tmpfs(s: &str) -> Result<MountSpec, InvalidFlag> {
    let (inside, options) = s.split_once(':').unwrap_or((s, ""));
    let (mut size, mut mode, mut rest, mut read_only) = (None, None, Vec::new(), false);
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => size = Some(value.parse()?),
            Some(("mode", value)) => mode = Some(octal(value, s)?),
            _ if option == "ro" => read_only = true,
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks" | "huge", _)) => rest.push(option.to_owned()),
            None if matches!(
                option,
                "rw" | "exec"
                    | "noexec"
                    | "suid"
                    | "nosuid"
                    | "dev"
                    | "nodev"
                    | "sync"
                    | "async"
                    | "noatime"
                    | "nodiratime"
                    | "relatime"
                    | "strictatime"
            ) =>
            {
                rest.push(option.to_owned());
            }
            _ => return Err(InvalidFlag::new("tmpfs", s, format!("unknown option {option:?}"))),
        }
    }
    Ok(MountSpec {
        kind: MountKind::Tmpfs {
            size,
            mode,
            options: rest,
        },
        target: target(inside, s)?,
        read_only,
        propagation: Propagation::default(),
    })
}

fn octal(value: &str, whole: &str) -> Result<u32, InvalidFlag> {
    u32::from_str_radix(value, 8)
        .ok()
        .filter(|m| *m <= 0o7777)
        .ok_or_else(|| InvalidFlag::new("mount", whole, "the mode is no octal number up to 7777"))
}

/// `--mount type=…,source=…,target=…,…`.
impl FromStr for MountSpec {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: String| InvalidFlag::new("mount", s, why);
        let (mut kind, mut source, mut inside) = ("volume", None, None);
        let (mut read_only, mut nocopy, mut recursive, mut create) = (false, false, true, false);
        let (mut size, mut mode, mut propagation) = (None, None, Propagation::default());
        let flag = |v: Option<&str>| match v {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(bad(format!("{other:?} is neither true nor false"))),
        };
        for field in s.split(',') {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (field, None),
            };
            let needed = || {
                value
                    .filter(|v| !v.is_empty())
                    .ok_or_else(|| bad(format!("{key} needs a value")))
            };
            match key {
                "type" => kind = needed()?,
                "source" | "src" => source = Some(needed()?),
                "target" | "destination" | "dst" => inside = Some(needed()?),
                "readonly" | "ro" => read_only = flag(value)?,
                "bind-propagation" => {
                    propagation =
                        Propagation::parse(needed()?).ok_or_else(|| bad("no such propagation".into()))?;
                }
                "bind-nonrecursive" => recursive = !flag(value)?,
                "bind-create-src" => create = flag(value)?,
                "volume-nocopy" => nocopy = flag(value)?,
                "tmpfs-size" => size = Some(needed()?.parse()?),
                "tmpfs-mode" => mode = Some(octal(needed()?, s)?),
                "consistency" => {}
                other => return Err(bad(format!("unknown key {other:?}"))),
            }
        }
        let kind = match kind {
            "bind" => {
                let source = source.ok_or_else(|| bad("a bind needs a source".into()))?;
                if !source.starts_with('/') {
                    return Err(bad("the source of a bind is an absolute path".into()));
                }
                MountKind::Bind {
                    source: source.into(),
                    create,
                    recursive,
                }
            }
            "volume" => {
                if source.is_some_and(|n| n.contains('/')) {
                    return Err(bad("a volume's name holds no '/'".into()));
                }
                MountKind::Volume {
                    name: source.map(str::to_owned),
                    nocopy,
                }
            }
            "tmpfs" if source.is_some() => return Err(bad("a tmpfs has no source".into())),
            "tmpfs" => MountKind::Tmpfs {
                size,
                mode,
                options: Vec::new(),
            },
            other => return Err(bad(format!("type {other:?} is not bind, volume or tmpfs"))),
        };
        let inside = inside.ok_or_else(|| bad("target is missing".into()))?;
        Ok(MountSpec {
            kind,
            target: target(inside, s)?,
            read_only,
            propagation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_form() {
        let m = parse_volume("/srv/data:/data:ro,rslave").unwrap();
        assert!(m.read_only && m.propagation == Propagation::Rslave);
        assert!(matches!(m.kind, MountKind::Bind { create: true, .. }));
        for (text, behind) in [("./x:/y", "/x"), (".:/y", ""), ("../x/z:/y", "/../x/z")] {
            let MountKind::Bind {
                source, create: true, ..
            } = parse_volume(text).unwrap().kind
            else {
                panic!("{text} is a bind")
            };
            let here = std::env::current_dir().unwrap();
            assert_eq!(
                source,
                Path::new(&format!("{}{behind}", here.display())),
                "{text}"
            );
        }
        let m = parse_volume("db:/var/lib/db").unwrap();
        assert_eq!(
            m.kind,
            MountKind::Volume {
                name: Some("db".into()),
                nocopy: false
            }
        );
        for bad in [
            "",
            "data",
            "/a:b",
            "/a:/..",
            "/a:/",
            "x/y:/y",
            ".x:/y",
            "/a:/b:nonsense",
            "/a:/b:ro,rw",
            "v:/b:rslave",
            ":/b",
        ] {
            assert!(parse_volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_form() {
        let m: MountSpec = "type=bind,src=/a,dst=/b,readonly".parse().unwrap();
        assert!(matches!(m.kind, MountKind::Bind { create: false, .. }) && m.read_only);
        let m: MountSpec = "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700"
            .parse()
            .unwrap();
        assert!(matches!(
            m.kind,
            MountKind::Tmpfs {
                size: Some(MemorySize(0x10_0000)),
                mode: Some(0o700),
                ..
            }
        ));
        for bad in [
            "type=bind,dst=/b",
            "type=nfs,dst=/b",
            "dst=b",
            "type=tmpfs,src=/a,dst=/b",
            "x=y,dst=/b",
        ] {
            assert!(bad.parse::<MountSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tmpfs_form() {
        assert!(parse_tmpfs("/run:size=64k,mode=1777,noexec").is_ok());
        assert!(parse_tmpfs("/run:upperdir=/x").is_err());
    }

    proptest! {
        #[test]
        fn an_accepted_target_stays_below_the_root(s in "[a-z./:,=]{0,40}") {
            for spec in [parse_volume(&s), parse_tmpfs(&s), s.parse()].into_iter().flatten() {
                prop_assert!(spec.target.is_absolute());
                prop_assert!(!spec.target.components().any(|c| c == Component::ParentDir));
            }
        }
    }
}
