//! Small images made by umoci, which knows nothing of berth.

use std::path::{Path, PathBuf};
use std::process::Command;

use berth_tests::{Berth, Need, Registry, require};

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

/// An image in a registry, and a `berth` that has not seen it.
pub struct Pushed {
    pub berth: Berth,
    pub registry: Registry,
    /// What it was made from.
    pub layout: PathBuf,
    /// What to pull.
    pub image: String,
}

/// Starts a registry and pushes an image of these layers, or none on a host without the programs for it.
pub fn pushed(start: fn() -> Registry, layers: &[&str], name: &str) -> Option<Pushed> {
    if !require(&NEEDS) {
        return None;
    }
    let (berth, registry) = (Berth::new(), start());
    let layout = layout(berth.scratch(), layers);
    let image = registry.push_with_skopeo(&oci(&layout), name);
    Some(Pushed {
        berth,
        registry,
        layout,
        image,
    })
}

/// What making images and pushing them takes.
pub const NEEDS: [Need; 4] = [
    Need::Root,
    Need::Program("docker-registry"),
    Need::Program("skopeo"),
    Need::Program("umoci"),
];

/// How many entries a directory has; none when it is missing.
pub fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}
