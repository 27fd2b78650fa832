//! Images in docker's JSON shapes.

use serde_json::{Map, Value, json};

use crate::Images;
use crate::error::Result;
use crate::image::Image;
use crate::manifest::CONFIG_BYTES_MAX;

/// A row of `berth history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The image id on the topmost row, `<missing>` below it.
    pub id: String,
    /// RFC 3339, or empty.
    pub created: String,
    /// The instruction.
    pub created_by: String,
    /// Bytes of the layer, 0 for steps without one.
    pub size: u64,
    /// Free text.
    pub comment: String,
}

impl Images {
    /// One element of `docker image inspect`'s array.
    ///
    /// # Errors
    /// As [`Images::resolve`].
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let asked = self.resolve(name)?;
        // The other names are only in the list.
        let image = self
            .list()?
            .into_iter()
            .find(|i| i.id == asked.id)
            .unwrap_or(asked);
        // From the document itself: members berth does not know are shown too.
        let document = self.content.read(&image.id, CONFIG_BYTES_MAX)?;
        let document: Map<String, Value> = serde_json::from_slice(&document).unwrap_or_default();
        Ok(shape(&image, &document))
    }

    /// How the image was made.
    ///
    /// # Errors
    /// As [`Images::resolve`].
    pub fn history(&self, name: &str) -> Result<Vec<HistoryRow>> {
        let image = self.resolve(name)?;
        let mut layers = image.held.iter();
        let mut rows: Vec<HistoryRow> = Vec::with_capacity(image.config.history.len());
        for step in &image.config.history {
            let layer = if step.empty_layer { None } else { layers.next() };
            rows.push(HistoryRow {
                id: "<missing>".into(),
                created: step.created.clone().unwrap_or_default(),
                created_by: step.created_by.clone().unwrap_or_default(),
                size: layer.map_or(0, |l| l.record().size),
                comment: step.comment.clone().unwrap_or_default(),
            });
        }
        // A config need not tell every layer's story.
        for layer in layers {
            rows.push(HistoryRow {
                id: "<missing>".into(),
                created: String::new(),
                created_by: String::new(),
                size: layer.record().size,
                comment: String::new(),
            });
        }
        rows.reverse();
        if let Some(top) = rows.first_mut() {
            top.id = image.id.to_string();
        }
        Ok(rows)
    }
}

fn shape(image: &Image, document: &Map<String, Value>) -> Value {
    let layers: Vec<String> = image
        .layers
        .iter()
        .rev()
        .map(|l| l.display().to_string())
        .collect();
    let comment = image.config.history.last().and_then(|h| h.comment.clone());
    json!({
        "Id": image.id.as_str(),
        "RepoTags": image.names,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": comment.unwrap_or_default(),
        "Created": image.created,
        "DockerVersion": document.get("docker_version").cloned().unwrap_or_else(|| json!("")),
        "Author": image.config.author.clone().unwrap_or_default(),
        "Config": run_config(document.get("config")),
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay", "Data": {"LowerDir": layers.join(":")}},
        "RootFS": {"Type": "layers", "Layers": image.config.rootfs.diff_ids},
        "Variant": image.config.variant.clone().unwrap_or_default(),
        "Descriptor": {
            "mediaType": image.target.media_type,
            "digest": image.target.digest.as_str(),
            "size": image.target.size,
        },
    })
}

/// The config with every member docker shows, so that templates find what they name.
fn run_config(config: Option<&Value>) -> Value {
    let mut shown = json!({
        "Hostname": "", "Domainname": "", "User": "",
        "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false,
        "Env": null, "Cmd": null, "Image": "", "Volumes": null, "WorkingDir": "",
        "Entrypoint": null, "OnBuild": null, "Labels": null,
    });
    if let (Some(shown), Some(Value::Object(own))) = (shown.as_object_mut(), config) {
        for (key, value) in own {
            shown.insert(key.clone(), value.clone());
        }
    }
    shown
}
