//! Capabilities the kernel or this host does not have: left out with a warning, as runc does, so that one
//! configuration serves hosts of different ages.

use oci_spec::runtime::{Capability, Process};
use serde_json::Value;

const SETS: [&str; 5] = ["bounding", "effective", "permitted", "inheritable", "ambient"];

/// Takes names no capability has out of a `capabilities` object; the warning about them, if any.
#[must_use]
pub fn drop_unknown(capabilities: &mut Value) -> Option<String> {
    let mut unknown: Vec<String> = Vec::new();
    for set in SETS {
        let Some(names) = capabilities[set].as_array_mut() else {
            continue;
        };
        names.retain(|name| {
            // What is no text is an error of form, and the parser's to name.
            let Some(text) = name.as_str() else { return true };
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known && !unknown.iter().any(|other| other == text) {
                unknown.push(text.to_owned());
            }
            known
        });
    }
    let names: Vec<String> = unknown.iter().map(|n| n.escape_debug().to_string()).collect();
    (!names.is_empty()).then(|| format!("ignoring unknown capabilities: {}", names.join(", ")))
}

/// The warning about capabilities that this process could not hand on, if any.
pub(crate) fn lacking(process: &Process) -> Option<String> {
    let sets = process.capabilities().as_ref()?;
    let mut lacking: Vec<String> = Vec::new();
    for set in [sets.bounding(), sets.effective(), sets.permitted()] {
        for cap in set.iter().flatten() {
            let number = crate::process::capability_number(*cap);
            if !berth_sys::credentials::in_bounding_set(number).unwrap_or(false) {
                lacking.push(serde_json::to_value(cap).ok()?.as_str()?.to_owned());
            }
        }
    }
    lacking.sort();
    lacking.dedup();
    (!lacking.is_empty()).then(|| {
        format!(
            "ignoring capabilities this host does not give: {}",
            lacking.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_go_and_are_named_once() {
        let mut value = serde_json::json!({"bounding": ["CAP_FLY", "CAP_KILL"], "effective": ["CAP_FLY"], "ambient": null});
        let warning = drop_unknown(&mut value);
        assert_eq!(warning.as_deref(), Some("ignoring unknown capabilities: CAP_FLY"));
        assert_eq!(value["bounding"], serde_json::json!(["CAP_KILL"]));
        assert_eq!(value["effective"], serde_json::json!([]));
        assert_eq!(drop_unknown(&mut value), None);
    }
}
