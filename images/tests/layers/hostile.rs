//! Whatever an archive says, nothing outside the root changes.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use berth_images::layer::tar::{Kind, NewEntry, Writer, Xattr};
use berth_images::layer::{self, Compression, Error, Limits};
use proptest::prelude::*;

use crate::archive::*;

type Build = fn(&mut Writer<&mut Vec<u8>>, &str);

/// CVE-2021-32760, CVE-2025-47290, CVE-2026-33056 and their kin: whatever the archive says, nothing outside changes.
#[test]
fn hostile_archives_stay_inside() {
    if !root() {
        return;
    }
    let cases: &[(&str, bool, Build)] = &[
        ("dot dot", false, |w, _| file(w, "../outside/new", b"x")),
        ("dot dot within", false, |w, _| {
            file(w, "a/../../outside/new", b"x")
        }),
        ("absolute name", true, |w, out| {
            file(w, &format!("{out}/new"), b"x")
        }),
        ("symlink then write through it", true, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            file(w, "link/../link2", b"x".as_slice().get(..0).unwrap_or_default());
        }),
        ("absolute symlink then write below", false, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            file(w, "link/new", b"x");
        }),
        ("relative symlink then write below", false, |w, _| {
            plain(w, "link", Kind::Symlink, "../outside");
            file(w, "link/new", b"x");
        }),
        ("symlink to a file, then the file", true, |w, out| {
            plain(w, "f", Kind::Symlink, &format!("{out}/victim"));
            file(w, "f", b"overwritten");
        }),
        (
            "symlink to a directory, then the directory with a mode",
            true,
            |w, out| {
                plain(w, "d", Kind::Symlink, out);
                w.header(&NewEntry {
                    mode: 0o777,
                    ..entry("d", Kind::Directory, "")
                })
                .unwrap();
            },
        ),
        ("hard link to a name outside", true, |w, out| {
            plain(w, "h", Kind::HardLink, &format!("{out}/victim"));
        }),
        ("hard link with dot dot", false, |w, _| {
            plain(w, "h", Kind::HardLink, "../outside/victim")
        }),
        ("hard link through a symlink", true, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            plain(w, "h", Kind::HardLink, "link/victim");
        }),
        ("whiteout through a symlink", false, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            file(w, "link/.wh.victim", b"");
        }),
        ("whiteout of dot dot", false, |w, _| file(w, "a/.wh...", b"")),
        ("whiteout of dot", false, |w, _| file(w, "a/.wh..", b"")),
        ("whiteout of nothing", false, |w, _| file(w, "a/.wh.", b"")),
        ("opaque through a symlink", false, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            file(w, "link/.wh..wh..opq", b"");
        }),
        ("chmod through a hard-linked symlink", true, |w, out| {
            plain(w, "link", Kind::Symlink, &format!("{out}/victim"));
            plain(w, "h", Kind::HardLink, "link");
            w.header(&NewEntry {
                mode: 0o4777,
                ..entry("n", Kind::Fifo, "")
            })
            .unwrap();
        }),
        ("root that is a file", false, |w, _| file(w, "./", b"x")),
        ("overlayfs' own xattr", false, |w, _| {
            let xattrs = [Xattr {
                name: b"trusted.overlay.redirect".to_vec(),
                value: b"/etc".to_vec(),
            }];
            w.header(&NewEntry {
                xattrs: &xattrs,
                ..entry("d", Kind::Directory, "")
            })
            .unwrap();
        }),
        ("overlayfs' own user xattr", false, |w, _| {
            let xattrs = [Xattr {
                name: b"user.overlay.metacopy".to_vec(),
                value: Vec::new(),
            }];
            w.header(&NewEntry {
                xattrs: &xattrs,
                ..entry("d", Kind::Directory, "")
            })
            .unwrap();
        }),
        ("hard link to itself", false, |w, _| {
            file(w, "f", b"x");
            plain(w, "./f", Kind::HardLink, "f");
        }),
        ("name of a megabyte", false, |w, _| {
            file(w, &"a/".repeat(1 << 19), b"")
        }),
        ("component of a kilobyte", false, |w, _| {
            file(w, &"a".repeat(1024), b"")
        }),
        ("link target of a megabyte", false, |w, _| {
            plain(w, "l", Kind::Symlink, &"a".repeat(1 << 20))
        }),
    ];
    for (what, fine, build) in cases {
        let (tmp, root) = arena();
        let outside = tmp.path().join("outside");
        let bytes = tar(|w| build(w, outside.to_str().unwrap()));
        let result = unpack(&root, &bytes);
        assert_outside_untouched(tmp.path());
        if what.contains("symlink then write through it") {
            assert!(matches!(result, Err(Error::Entry { .. })), "{what}: {result:?}");
            continue;
        }
        assert_eq!(result.is_ok(), *fine, "{what}: {result:?}");
    }
}

/// A stream that fails when read past `limit`.
struct Watched<'b>(&'b [u8]);

impl Read for Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = out.len().min(self.0.len()).min(777);
        out[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Valid archives with bytes changed: read or refused, never a panic, never anything outside the root.
    #[test]
    fn mutated_archives_stay_inside(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), fix: bool) {
        prop_assume!(rustix::process::geteuid().is_root());
        let (tmp, root) = arena();
        let mut bytes = tar(|w| {
            plain(w, "link", Kind::Symlink, "../outside");
            file(w, "d/file", b"some data");
            file(w, "d/.wh.x", b"");
            plain(w, "h", Kind::HardLink, "d/file");
            let xattrs = [Xattr { name: b"user.a".to_vec(), value: b"b".to_vec() }];
            w.header(&NewEntry { xattrs: &xattrs, ..entry("x", Kind::Directory, "") }).unwrap();
        });
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if fix {
            // Checksums made right again let the changes reach the parser.
            for block in bytes.chunks_exact_mut(512).filter(|b| &b[257..262] == b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let limits = Limits { expanded_bytes: 1 << 20, ..Limits::default() };
        let fd = File::open(&root).unwrap();
        let _ = layer::unpack(fd.as_fd(), Compression::None, Watched(&bytes), berth_images::digest::Algorithm::Sha256, &limits);
        assert_outside_untouched(tmp.path());
    }
}
