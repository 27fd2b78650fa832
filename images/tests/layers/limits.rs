//! What is too much, and streams that break.

use std::fs;
use std::io::Write;

use berth_images::Digest;
use berth_images::layer::tar::{Kind, NewEntry, Xattr};
use berth_images::layer::{Compression, Error, Limits};

use crate::archive::*;

#[test]
fn limits_name_the_entry_and_the_bound() {
    if !root() {
        return;
    }
    let zeros = vec![0u8; 8 << 20];
    let big = tar(|w| file(w, "bomb", &zeros));
    let small = Limits {
        expanded_bytes: 4 << 20,
        ..Limits::default()
    };
    let ratio = Limits {
        ratio: 100,
        ratio_after_bytes: 1 << 20,
        ..Limits::default()
    };
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&big).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(&big[..], 19).unwrap();
    let many = tar(|w| (0..100).for_each(|i| file(w, &format!("f{i}"), b"")));
    let few = Limits {
        entries: 50,
        ..Limits::default()
    };
    let xattrs = tar(|w| {
        let xattrs = [Xattr {
            name: b"user.a".to_vec(),
            value: vec![b'x'; 60_000],
        }];
        w.header(&NewEntry {
            xattrs: &xattrs,
            ..entry("fat", Kind::Directory, "")
        })
        .unwrap();
    });
    let lean = Limits {
        pax_bytes: 1000,
        ..Limits::default()
    };
    let dirs = tar(|w| (0..100).for_each(|i| plain(w, &format!("d{i}"), Kind::Directory, "")));
    let forgetful = Limits {
        kept_name_bytes: 1000,
        ..Limits::default()
    };
    for (bytes, compression, limits, names) in [
        (&big, Compression::None, &small, "bomb"),
        (&gz, Compression::Gzip, &small, "bomb"),
        (&zst, Compression::Zstd, &small, "bomb"),
        (&gz, Compression::Gzip, &ratio, "bomb"),
        (&zst, Compression::Zstd, &ratio, "bomb"),
        (&many, Compression::None, &few, "f50"),
        (&xattrs, Compression::None, &lean, "PAX header"),
        (&dirs, Compression::None, &forgetful, "directory"),
    ] {
        let (_tmp, root) = arena();
        let error = unpack_with(&root, bytes, compression, limits).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error:?}");
        assert!(error.to_string().contains(names), "{error}");
    }
}

#[test]
fn broken_streams_are_refused() {
    if !root() {
        return;
    }
    let good = tar(|w| file(w, "f", &[7u8; 100_000]));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&good).unwrap();
    let gz = encoder.finish().unwrap();
    let zst = zstd::encode_all(&good[..], 3).unwrap();
    let mut flipped = gz.clone();
    let middle = flipped.len() - 6;
    flipped[middle] ^= 1;
    let garbage = |bytes: &[u8]| [bytes, b"garbage behind the end"].concat();
    for (what, bytes, compression) in [
        ("truncated tar", good[..50_000].to_vec(), Compression::None),
        ("truncated gzip", gz[..gz.len() - 9].to_vec(), Compression::Gzip),
        ("truncated zstd", zst[..zst.len() - 3].to_vec(), Compression::Zstd),
        ("gzip with a wrong checksum", flipped, Compression::Gzip),
        ("gzip with garbage behind", garbage(&gz), Compression::Gzip),
        ("zstd with garbage behind", garbage(&zst), Compression::Zstd),
        ("plain as gzip", good.clone(), Compression::Gzip),
    ] {
        let (_tmp, root) = arena();
        let error = unpack_with(&root, &bytes, compression, &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Stream { .. }), "{what}: {error:?}");
    }
    // Several members or frames are one stream.
    let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let gzip = |bytes: &[u8]| {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(bytes).unwrap();
        e.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let (head, tail) = good.split_at(1000);
    for (bytes, compression) in [
        (two(gzip(head), gzip(tail)), Compression::Gzip),
        (two(zstd(head), zstd(tail)), Compression::Zstd),
    ] {
        let (_tmp, root) = arena();
        let received = unpack_with(&root, &bytes, compression, &Limits::default()).unwrap();
        assert_eq!(received.diff_id, Digest::of(&good));
        assert_eq!(fs::read(root.join("f")).unwrap(), [7u8; 100_000]);
    }
}

#[test]
fn a_zstd_window_beyond_the_limit_is_named() {
    if !root() {
        return;
    }
    let bytes = tar(|w| file(w, "f", &vec![7u8; 1 << 20]));
    // Without a known size the frame's header names the window itself, as every streaming compressor's does.
    let with_window = |log| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (_tmp, root) = arena();
    let error = unpack_with(&root, &with_window(28), Compression::Zstd, &Limits::default()).unwrap_err();
    assert!(matches!(error, Error::ZstdWindow { limit_mib: 128 }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "layer needs a zstd window over the limit of 128 MiB"
    );
    // What `zstd --long` writes.
    let (_tmp, root) = arena();
    unpack_with(&root, &with_window(27), Compression::Zstd, &Limits::default()).unwrap();
}

#[test]
fn a_layer_may_end_behind_its_last_byte_of_data() {
    if !root() {
        return;
    }
    let data = b"umoci-insert(1) writes this";
    let bytes = tar(|w| file(w, "f", data));
    let data_ends = data.len() + bytes.windows(data.len()).position(|part| part == data).unwrap();
    for (length, fine) in [
        (data_ends, true),
        (data_ends + 1, true),
        (data_ends - 1, false),
        (511, false),
    ] {
        let (_tmp, root) = arena();
        let result = unpack(&root, &bytes[..length]);
        assert_eq!(result.is_ok(), fine, "{length} bytes: {result:?}");
        if fine {
            assert_eq!(fs::read(root.join("f")).unwrap(), data);
        }
    }
}
