//! Where `save` and `export` write: a file that is there whole or not at all, or standard output.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// Gives `write` the file at `path`, or standard output, which a person should not be looking at. A file is put in its place when
/// all of it is written; after a failure what was there before still is.
pub fn whole(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let Some(path) = path else {
        if io::stdout().is_terminal() {
            return Err(Failure::new("an archive is not written to a terminal").with_hint("use -o FILE"));
        }
        let mut out = BufWriter::new(io::stdout().lock());
        write(&mut out)?;
        return Ok(out.flush()?);
    };
    let failed =
        |operation: &str, path: &Path, e: io::Error| Failure::from(e).during(operation, path.display());
    // A link stays one; a pipe or device is written to, not replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options()
            .write(true)
            .open(path)
            .map_err(|e| failed("open", path, e))?;
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        return out.flush().map_err(|e| failed("write", path, e));
    }
    let half = Half::create(path).map_err(|e| failed("create", path, e))?;
    let mut out = BufWriter::new(&half.file);
    write(&mut out)?;
    out.flush().map_err(|e| failed("write", path, e))?;
    drop(out);
    fs::rename(&half.path, path).map_err(|e| failed("create", path, e))
}

/// A file on its way; gone when dropped, unless it was renamed.
struct Half {
    path: PathBuf,
    file: File,
}

impl Half {
    /// Beside the file it becomes, under a name nobody else uses.
    fn create(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let path = path.with_file_name(name);
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("list").flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let directory = std::env::temp_dir().join(format!("berth-output-{}", std::process::id()));
        fs::create_dir(&directory).expect("make a directory");
        let path = directory.join("out.tar");
        let fail = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            Err(Failure::new("no more"))
        };
        assert!(whole(Some(&path), fail).is_err());
        assert_eq!(names(&directory), Vec::<String>::new());
        whole(Some(&path), |out| Ok(out.write_all(b"first")?)).expect("written");
        assert!(whole(Some(&path), fail).is_err());
        assert_eq!(fs::read(&path).expect("read"), b"first");
        let link = directory.join("link");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        whole(Some(&link), |out| Ok(out.write_all(b"second")?)).expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"second");
        assert_eq!(names(&directory).len(), 2);
        assert!(whole(Some(&directory.join("no/such")), |_| Ok(())).is_err());
        fs::remove_dir_all(&directory).expect("remove");
    }

    #[test]
    fn a_device_is_written_to() {
        whole(Some(Path::new("/dev/null")), |out| Ok(out.write_all(b"x")?)).expect("written");
        assert!(!fs::metadata("/dev/null").expect("it is still there").is_file());
    }
}
