//! Module files, packed as distributions pack them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Larger than any module a guest needs; a packed file may say anything.
const MODULE_MAX: u64 = 64 << 20;

/// How module files end.
const ENDINGS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// The module's name, with its underscores, if this is a module file.
pub(super) fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let stem = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending))?;
    super::modinfo::name(stem)
}

/// A module file's bytes, unpacked by how its name ends.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let ending = path.extension().and_then(|ending| ending.to_str());
    let reader: Box<dyn Read> = match ending {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file)?),
        Some("gz") => Box::new(flate2::read::GzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut bytes = Vec::new();
    reader.take(MODULE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MODULE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn names_are_taken_from_files() {
        for (file, name) in [
            ("a/virtio-rng.ko", Some("virtio_rng")),
            ("erofs.ko.xz", Some("erofs")),
            ("x.ko.zst", Some("x")),
            ("x.ko.gz", Some("x")),
            ("x.ko.bz2", None),
            ("modules.dep", None),
        ] {
            assert_eq!(module_name(Path::new(file)).as_deref(), name, "{file}");
        }
    }

    #[test]
    fn each_packing_is_undone_and_bounded() {
        let tmp = tempfile::tempdir().unwrap();
        let pack = |name: &str, bytes: &[u8]| {
            let path = tmp.path().join(name);
            let packed = match path.extension().unwrap().to_str().unwrap() {
                "xz" => {
                    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 0);
                    out.write_all(bytes).unwrap();
                    out.finish().unwrap()
                }
                "zst" => zstd::encode_all(bytes, 1).unwrap(),
                "gz" => {
                    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    out.write_all(bytes).unwrap();
                    out.finish().unwrap()
                }
                _ => bytes.to_vec(),
            };
            std::fs::write(&path, packed).unwrap();
            path
        };
        for ending in ["ko", "ko.xz", "ko.zst", "ko.gz"] {
            let path = pack(&format!("m.{ending}"), b"content of a module");
            assert_eq!(read(&path).unwrap(), b"content of a module", "{ending}");
        }
        let bomb = vec![0; usize::try_from(MODULE_MAX).unwrap() + 1];
        for ending in ["ko.zst", "ko.gz"] {
            let error = read(&pack(&format!("bomb.{ending}"), &bomb)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{ending}");
        }
        std::fs::write(tmp.path().join("bad.ko.xz"), b"\xfd7zXZ\0 and no more").unwrap();
        assert!(read(&tmp.path().join("bad.ko.xz")).is_err());
    }
}
