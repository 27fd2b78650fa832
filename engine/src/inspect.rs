//! `inspect` and `port`.
use crate::engine::Engine;
use crate::error::Result;
use crate::id::ContainerId;
use crate::network::PortMapping;

impl Engine {
    /// The container as docker's `inspect` prints it: one JSON object.
    pub fn inspect(&self, id: &ContainerId) -> Result<serde_json::Value> {
        let config = self.config(id)?;
        Ok(serde_json::json!({ "Id": config.id, "Name": format!("/{}", config.name) }))
    }
    /// Published ports while it runs.
    pub fn port(&self, id: &ContainerId) -> Result<Vec<PortMapping>> {
        Ok(self.state(id)?.ports)
    }
}
