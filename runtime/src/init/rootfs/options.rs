//! fstab-style mount options (runtime-spec config.md#linux-mount-options), parsed once into what the kernel's calls take.

use berth_sys::mount_attr::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME, MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE,
};

/// Changes to mount attributes; an attribute is in at most one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attrs {
    pub set: u64,
    pub clear: u64,
}

impl Attrs {
    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    /// The access-time mode is a number, not bits: mount_setattr(2) wants the whole field cleared to change it.
    fn atime(&mut self, mode: u64) {
        self.set = (self.set & !MOUNT_ATTR__ATIME) | mode;
        self.clear |= MOUNT_ATTR__ATIME;
    }

    pub(super) fn is_empty(self) -> bool {
        self == Attrs::default()
    }
}

/// How a mount passes events on, and whether the whole tree below it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Propagation {
    /// `MS_SHARED` …
    pub mode: u64,
    pub recursive: bool,
}

impl Propagation {
    /// The words shared by mount options and `linux.rootfsPropagation`.
    pub(super) fn parse(word: &str) -> Option<Propagation> {
        let (mode, recursive) = match word {
            "shared" => (MS_SHARED, false),
            "rshared" => (MS_SHARED, true),
            "slave" => (MS_SLAVE, false),
            "rslave" => (MS_SLAVE, true),
            "private" => (MS_PRIVATE, false),
            "rprivate" => (MS_PRIVATE, true),
            "unbindable" => (MS_UNBINDABLE, false),
            "runbindable" => (MS_UNBINDABLE, true),
            _ => return None,
        };
        Some(Propagation { mode, recursive })
    }
}

/// A bind of one mount, or of it and all below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bind {
    Single,
    Recursive,
}

/// The options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub bind: Option<Bind>,
    pub remount: bool,
    pub copy_up: bool,
    /// `idmap` (false) or `ridmap` (true).
    pub idmap: Option<bool>,
    /// For the mount itself.
    pub attrs: Attrs,
    /// For it and all mounts below (`rro` …).
    pub recursive: Attrs,
    pub propagation: Vec<Propagation>,
    /// Flags of the superblock, as fsconfig(2) names them.
    pub superblock: Vec<&'static str>,
    /// What only the file system understands.
    pub data: Vec<(String, Option<String>)>,
}

impl Options {
    /// Later words win over earlier ones, as mount(8) has it.
    ///
    /// # Errors
    /// The reason, naming the word.
    pub(super) fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Options, String> {
        let mut options = Options::default();
        for word in words {
            options.apply(word)?;
        }
        Ok(options)
    }

    fn apply(&mut self, word: &str) -> Result<(), String> {
        if word.contains('\0') {
            return Err(format!("option {word:?} holds a NUL byte"));
        }
        if let Some(propagation) = Propagation::parse(word) {
            self.propagation.push(propagation);
            return Ok(());
        }
        if attribute(word, &mut self.attrs) {
            return Ok(());
        }
        if let Some(rest) = word.strip_prefix('r')
            && attribute(rest, &mut self.recursive)
        {
            return Ok(());
        }
        match word {
            "" => return Err("an option is empty".into()),
            "defaults" | "loud" | "silent" => {}
            "bind" => self.bind = self.bind.or(Some(Bind::Single)),
            "rbind" => self.bind = Some(Bind::Recursive),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            "sync" => self.superblock_flag("sync", "async"),
            "async" => self.superblock_flag("async", "sync"),
            "dirsync" => self.superblock_flag("dirsync", ""),
            "lazytime" => self.superblock_flag("lazytime", "nolazytime"),
            "nolazytime" => self.superblock_flag("nolazytime", "lazytime"),
            "mand" => self.superblock_flag("mand", "nomand"),
            "nomand" => self.superblock_flag("nomand", "mand"),
            "iversion" | "noiversion" => {
                // The kernel stopped taking MS_I_VERSION from mount(2) callers; file systems that want it take the word.
                self.data.push((word.to_owned(), None));
            }
            _ => match word.split_once('=') {
                Some(("", _)) => return Err(format!("option {word:?} has no name")),
                Some((key, value)) => self.data.push((key.to_owned(), Some(value.to_owned()))),
                None => self.data.push((word.to_owned(), None)),
            },
        }
        Ok(())
    }

    fn superblock_flag(&mut self, flag: &'static str, opposite: &str) {
        self.superblock.retain(|f| *f != opposite && *f != flag);
        self.superblock.push(flag);
    }

    /// The value the file system gets for `key`.
    pub(super) fn has_data(&self, key: &str) -> bool {
        self.data.iter().any(|(k, _)| k == key)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.attrs.set & MOUNT_ATTR_RDONLY != 0
    }

    /// `rw` was said, not merely `ro` left out.
    pub(super) fn is_read_write(&self) -> bool {
        self.attrs.clear & MOUNT_ATTR_RDONLY != 0
    }
}

/// Applies the word of a mount attribute; false if it is none.
fn attribute(word: &str, attrs: &mut Attrs) -> bool {
    match word {
        "ro" => attrs.set(MOUNT_ATTR_RDONLY),
        "rw" => attrs.clear(MOUNT_ATTR_RDONLY),
        "nosuid" => attrs.set(MOUNT_ATTR_NOSUID),
        "suid" => attrs.clear(MOUNT_ATTR_NOSUID),
        "nodev" => attrs.set(MOUNT_ATTR_NODEV),
        "dev" => attrs.clear(MOUNT_ATTR_NODEV),
        "noexec" => attrs.set(MOUNT_ATTR_NOEXEC),
        "exec" => attrs.clear(MOUNT_ATTR_NOEXEC),
        "nosymfollow" => attrs.set(MOUNT_ATTR_NOSYMFOLLOW),
        "symfollow" => attrs.clear(MOUNT_ATTR_NOSYMFOLLOW),
        "nodiratime" => attrs.set(MOUNT_ATTR_NODIRATIME),
        "diratime" => attrs.clear(MOUNT_ATTR_NODIRATIME),
        "noatime" => attrs.atime(MOUNT_ATTR_NOATIME),
        "strictatime" | "norelatime" => attrs.atime(MOUNT_ATTR_STRICTATIME),
        // The kernel's default; there is no mode without a rule, so the negations mean it too.
        "relatime" | "atime" | "nostrictatime" => attrs.atime(MOUNT_ATTR_RELATIME),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(words.split(',')).expect("parses")
    }

    #[test]
    fn features_names_no_word_that_is_left_to_the_file_system() {
        for word in crate::features::MOUNT_OPTIONS {
            let data = parse(word).data;
            assert!(data.is_empty() || word.ends_with("iversion"), "{word}: {data:?}");
        }
    }

    #[test]
    fn later_words_win() {
        assert_eq!(
            parse("ro,rw").attrs,
            Attrs {
                set: 0,
                clear: MOUNT_ATTR_RDONLY
            }
        );
        assert_eq!(
            parse("rw,ro").attrs,
            Attrs {
                set: MOUNT_ATTR_RDONLY,
                clear: 0
            }
        );
        assert!(parse("rw").is_read_write() && !parse("nosuid").is_read_write());
        assert_eq!(parse("bind,rbind").bind, Some(Bind::Recursive));
        assert_eq!(parse("rbind,bind").bind, Some(Bind::Recursive));
        assert_eq!(parse("sync,async").superblock, ["async"]);
    }

    #[test]
    fn recursive_words_change_only_the_recursive_set() {
        let options = parse("rro,rnosuid,rnodev,rnoexec,rnoatime,rnodiratime,rnosymfollow");
        assert!(options.attrs.is_empty());
        assert_eq!(options.recursive.clear, MOUNT_ATTR__ATIME);
        let all = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        let times = MOUNT_ATTR_NOATIME | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW;
        assert_eq!(options.recursive.set, all | times);
        // `relatime` begins with r and is the plain option; `rrelatime` is the recursive one.
        assert_eq!(parse("relatime").recursive, Attrs::default());
        assert_eq!(parse("rrelatime").recursive.clear, MOUNT_ATTR__ATIME);
        assert!(parse("rrelatime").attrs.is_empty());
    }

    #[test]
    fn unknown_words_go_to_the_file_system() {
        let options = parse("size=64k,mode=1777,newinstance,lowerdir=/a=b");
        assert_eq!(options.data[0], ("size".into(), Some("64k".into())));
        assert_eq!(options.data[2], ("newinstance".into(), None));
        assert_eq!(options.data[3], ("lowerdir".into(), Some("/a=b".into())));
        assert!(options.attrs.is_empty());
    }

    #[test]
    fn propagation_keeps_its_order() {
        let got = parse("rslave,shared").propagation;
        let want = [
            Propagation {
                mode: MS_SLAVE,
                recursive: true,
            },
            Propagation {
                mode: MS_SHARED,
                recursive: false,
            },
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn nonsense_is_named() {
        assert!(Options::parse(["=x"]).unwrap_err().contains("=x"));
        assert!(Options::parse([""]).is_err());
        assert!(Options::parse(["a\0b"]).is_err());
    }

    proptest! {
        #[test]
        fn never_sets_and_clears_the_same_bit(words in proptest::collection::vec(
            "r?(ro|rw|nosuid|suid|nodev|dev|noexec|exec|noatime|atime|relatime|strictatime|nodiratime|diratime|x=1)", 0..12)) {
            let options = Options::parse(words.iter().map(String::as_str)).expect("all known");
            for attrs in [options.attrs, options.recursive] {
                prop_assert_eq!(attrs.set & attrs.clear & !MOUNT_ATTR__ATIME, 0);
                // mount_setattr(2): EINVAL if the access-time mode is set without clearing the whole field.
                if attrs.set & MOUNT_ATTR__ATIME != 0 {
                    prop_assert_eq!(attrs.clear & MOUNT_ATTR__ATIME, MOUNT_ATTR__ATIME);
                }
            }
        }

        #[test]
        fn any_words_parse_or_are_refused_without_panic(words in proptest::collection::vec(".{0,20}", 0..8)) {
            let _ = Options::parse(words.iter().map(String::as_str));
        }
    }
}
