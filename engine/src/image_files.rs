//! Questions asked of files inside an image: who is `www-data`?
//!
//! The files belong to whoever made the image. They are opened beneath the root by the kernel, only when regular, and read
//! to a bound: a symlink out, a FIFO or gigabytes of lines answer nothing (CVE-2024-9676). A number is a number before
//! it is a name, and must fit (CVE-2024-40635, CVE-2026-30892).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result};
use crate::flags::UserSpec;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, the first group among them.
    pub groups: Vec<u32>,
    /// Home directory, `/` when nobody says.
    pub home: String,
}

/// Bytes read of `/etc/passwd` or `/etc/group` at most.
const FILE_MAX: u64 = 1 << 20;

/// Ids above this are refused: the kernel keeps the topmost for "none", and docker draws the line at a signed 32 bits.
const ID_MAX: u32 = i32::MAX.cast_unsigned();

/// Looks a user up in the mounted root.
///
/// # Errors
///
/// [`Error::Invalid`] when a name is not there or a number does not fit.
pub fn identity(rootfs: BorrowedFd<'_>, user: &UserSpec, more_groups: &[String]) -> Result<Identity> {
    let passwd = lines(rootfs, "etc/passwd")?;
    let group = lines(rootfs, "etc/group")?;
    resolve(&passwd, &group, user, more_groups)
}

fn lines(rootfs: BorrowedFd<'_>, path: &str) -> Result<Vec<String>> {
    let fail = |e: rustix::io::Errno| Error::io("open", format!("/{path} in the image"), e);
    // O_NONBLOCK: a FIFO must not hold the open itself.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = berth_sys::open_beneath::open_in_root(rootfs, Path::new(path), flags, Mode::empty());
    let fd = match opened {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Invalid {
            what: format!("/{path} in the image"),
            why: "it is not a regular file".into(),
        });
    }
    let mut lines = Vec::new();
    for line in BufReader::new(File::from(fd).take(FILE_MAX)).split(b'\n') {
        let line = line.map_err(|e| Error::io("read", format!("/{path} in the image"), e))?;
        lines.push(String::from_utf8_lossy(&line).into_owned());
    }
    Ok(lines)
}

/// All digits: a number, which must be in range; anything else: a name.
fn id(text: &str, what: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= ID_MAX && digits.len() == text.len() => Ok(Some(id)),
        _ => Err(Error::Invalid {
            what: format!("{what} {text:?}"),
            why: "the id is out of range".into(),
        }),
    }
}

fn resolve(passwd: &[String], group: &[String], user: &UserSpec, more_groups: &[String]) -> Result<Identity> {
    let missing = |what: &str, name: &str, file: &str| Error::Invalid {
        what: format!("{what} {name:?}"),
        why: format!("no such entry in the image's {file}"),
    };
    let entries = || {
        passwd.iter().filter_map(|line| {
            let f: Vec<&str> = line.split(':').collect();
            // An entry with ids that do not parse is nobody, never uid 0.
            Some((
                f[0],
                f.get(2)?.parse::<u32>().ok()?,
                f.get(3)?.parse::<u32>().ok()?,
                f.get(5).copied().unwrap_or("/"),
            ))
        })
    };
    let wanted = if user.user.is_empty() { "0" } else { &user.user };
    let number = id(wanted, "user")?;
    let entry = match number {
        Some(uid) => entries().find(|e| e.1 == uid),
        None => Some(
            entries()
                .find(|e| e.0 == wanted)
                .ok_or_else(|| missing("user", wanted, "/etc/passwd"))?,
        ),
    };
    let uid = number.or(entry.map(|e| e.1)).unwrap_or(0);
    let group_id = |name: &str| -> Result<u32> {
        if let Some(gid) = id(name, "group")? {
            return Ok(gid);
        }
        group
            .iter()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|f| f[0] == name)
            .and_then(|f| f.get(2)?.parse().ok())
            .ok_or_else(|| missing("group", name, "/etc/group"))
    };
    let (gid, mut groups) = match &user.group {
        // As docker: a group said aloud leaves the user's other groups out.
        Some(name) => (group_id(name)?, Vec::new()),
        None => {
            let gid = entry.map_or(0, |e| e.2);
            let member_of = group.iter().filter_map(|line| {
                let f: Vec<&str> = line.split(':').collect();
                let member = f.get(3)?.split(',').any(|m| entry.is_some_and(|e| m == e.0));
                member.then(|| f.get(2)?.parse::<u32>().ok()).flatten()
            });
            (gid, member_of.take(1024).collect())
        }
    };
    for name in more_groups {
        groups.push(group_id(name)?);
    }
    // The first group too: a set-group-id program would shed it otherwise, and with it what a file denies that group
    // (CVE-2022-36109).
    groups.push(gid);
    if [uid, gid].iter().chain(&groups).any(|id| *id > ID_MAX) {
        return Err(Error::Invalid {
            what: format!("user {wanted:?}"),
            why: "the id is out of range".into(),
        });
    }
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map_or("/", |e| e.3);
    let home = if home.starts_with('/') && !home.contains('\0') {
        home
    } else {
        "/"
    };
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    fn ask(user: &str) -> Result<Identity> {
        let passwd = [
            "root:x:0:0::/root:/bin/sh",
            "www:x:33:34::/var/www:/x",
            "bad:x:zero:0::/:",
            "short:x",
        ];
        let group = ["root:x:0:", "www:x:34:", "video:x:44:www,root", "odd"];
        let own = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        resolve(&own(&passwd), &own(&group), &user.parse().unwrap(), &[])
    }

    #[test]
    fn names_numbers_and_groups() {
        let www = ask("www").unwrap();
        assert_eq!(
            (www.uid, www.gid, www.groups.as_slice(), www.home.as_str()),
            (33, 34, &[34, 44][..], "/var/www")
        );
        assert_eq!(ask("33:video").unwrap().gid, 44);
        assert_eq!(
            ask("1234").unwrap(),
            Identity {
                uid: 1234,
                gid: 0,
                groups: vec![0],
                home: "/".into()
            }
        );
        assert_eq!(ask("").unwrap().uid, 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_never_root() {
        // CVE-2024-40635: 4294967296 wraps to 0; CVE-2026-30892: the string read as another uid.
        for user in [
            "4294967296",
            "2147483648",
            "-1",
            "+0",
            "99999999999999999999",
            "bad",
            "short",
            "0x0",
            "1 ",
            "nobody",
        ] {
            assert!(ask(user).is_err(), "{user}");
        }
    }

    #[test]
    fn a_fifo_or_a_link_out_answers_nothing() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("passwd"), "evil:x:7:7::/:/\n").unwrap();
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let dir = File::open(root.path()).unwrap();
        let look = || identity(dir.as_fd(), &"evil".parse().unwrap(), &[]);
        std::os::unix::fs::symlink(outside.path().join("passwd"), etc.join("passwd")).unwrap();
        assert!(look().is_err());
        std::fs::remove_file(etc.join("passwd")).unwrap();
        rustix::fs::mknodat(&dir, "etc/passwd", FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(matches!(look(), Err(Error::Invalid { why, .. }) if why.contains("regular")));
        std::fs::remove_file(etc.join("passwd")).unwrap();
        std::fs::remove_dir(&etc).unwrap();
        std::os::unix::fs::symlink(outside.path(), &etc).unwrap();
        assert!(look().is_err());
    }

    #[test]
    fn a_file_without_end_is_read_to_its_bound() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = File::create(root.path().join("etc/passwd")).unwrap();
        passwd.set_len(1 << 40).unwrap();
        let dir = File::open(root.path()).unwrap();
        assert_eq!(identity(dir.as_fd(), &"5".parse().unwrap(), &[]).unwrap().uid, 5);
    }

    proptest! {
        #[test]
        fn uid_zero_only_for_who_asks_for_root(user in "[0-9a-z+-]{1,12}") {
            if let Ok(identity) = ask(&user)
                && identity.uid == 0
            {
                prop_assert!(user == "root" || user.bytes().all(|b| b == b'0'));
            }
        }
    }
}
