//! Small images made by umoci, which knows nothing of berth.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program to its end; its standard output.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("start a peer");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// An OCI layout `directory` with the image `latest`: a layer per name, holding a file of that name and content.
pub fn layout(directory: &Path, layers: &[&str]) -> PathBuf {
    let layout = directory.join("layout");
    run("umoci", &["init", "--layout", text(&layout)]);
    let image = format!("{}:latest", text(&layout));
    run("umoci", &["new", "--image", &image]);
    for name in layers {
        let tree = directory.join(format!("tree-{name}"));
        std::fs::create_dir_all(&tree).expect("make a directory");
        std::fs::write(tree.join(name), name).expect("write a file");
        run("umoci", &["insert", "--image", &image, text(&tree), "/data"]);
    }
    run(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.env",
            "COLOUR=blue",
            "--config.label",
            "made.by=umoci",
        ],
    );
    layout
}

/// `latest` of a layout as skopeo names it.
pub fn oci(layout: &Path) -> String {
    format!("oci:{}:latest", text(layout))
}

/// How many entries a directory has; none when it is missing.
pub fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}
