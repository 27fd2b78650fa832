//! `--format` of lists: the default table, `table TEMPLATE`, `json`, or a template a row.

use serde_json::{Map, Value};

use super::{harmless, raw, table};
use crate::failure::{Failure, Result};
use crate::template::{LABEL, Template};

/// A list as a verb gives it.
pub struct Rows<'a> {
    /// Field name and column heading, in docker's spelling.
    pub headings: &'a [(&'a str, &'a str)],
    /// The default template of a table, cells separated by tabs.
    pub table: &'a str,
    /// What `-q` prints, if the verb has it.
    pub quiet: Option<&'a str>,
    /// One object a row.
    pub rows: Vec<Value>,
}

impl Rows<'_> {
    /// Prints as `--format` and `-q` say.
    pub fn print(&self, format: Option<&str>, quiet: bool) -> Result<()> {
        raw(self.render(format, quiet)?.as_bytes())
    }

    /// The text [`Rows::print`] writes.
    pub fn render(&self, format: Option<&str>, quiet: bool) -> Result<String> {
        let format = format.filter(|text| !text.is_empty()).unwrap_or("table");
        if let (true, Some(template)) = (quiet && matches!(format, "table"), self.quiet) {
            return self.each(template);
        }
        match format {
            "table" => self.table(self.table),
            "json" => {
                let mut out = String::new();
                for row in &self.rows {
                    let mut row = row.clone();
                    if let Some(members) = row.as_object_mut() {
                        members.remove(LABEL);
                    }
                    out.push_str(&serde_json::to_string(&row)?);
                    out.push('\n');
                }
                Ok(out)
            }
            _ => match format.strip_prefix("table ") {
                Some(template) => self.table(template.trim_start()),
                None => self.each(format),
            },
        }
    }

    fn each(&self, template: &str) -> Result<String> {
        let template = Template::parse(&unescape(template))?;
        let mut out = String::new();
        for row in &self.rows {
            out.push_str(&harmless_but_tabs(&template.render(row)?));
            out.push('\n');
        }
        Ok(out)
    }

    fn table(&self, text: &str) -> Result<String> {
        let template = Template::parse(&unescape(text))?;
        let headings: Map<String, Value> = self
            .headings
            .iter()
            .map(|(field, heading)| ((*field).to_owned(), (*heading).into()))
            .chain([(LABEL.to_owned(), Value::Null)])
            .collect();
        // The heading is the template over the headings, as in docker; fields without one fail here already.
        let mut lines = vec![template.render(&Value::Object(headings)).map_err(|error| {
            Failure::from(error).with_hint(format!(
                "fields are {}",
                self.headings
                    .iter()
                    .map(|(field, _)| *field)
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
        })?];
        for row in &self.rows {
            lines.push(template.render(row)?);
        }
        Ok(table::layout(&lines))
    }
}

/// `\t` and `\n` typed in single quotes.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn harmless_but_tabs(text: &str) -> String {
    text.split('\t').map(harmless).collect::<Vec<_>>().join("\t")
}

/// Prints `inspect`'s objects: one JSON array, or a template an object.
pub fn inspect(values: Vec<Value>, format: Option<&str>) -> Result<()> {
    match format.filter(|text| !text.is_empty()) {
        None | Some("json") if values.is_empty() => super::line("[]"),
        None => super::json(&Value::Array(values)),
        Some("json") => super::line(&serde_json::to_string(&values)?),
        Some(text) => {
            let template = Template::parse(&unescape(text))?;
            for value in &values {
                super::line(&harmless_but_tabs(&template.render(value)?))?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows() -> Rows<'static> {
        Rows {
            headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
            table: "{{.ID}}\t{{.Names}}",
            quiet: Some("{{.ID}}"),
            rows: vec![json!({"ID": "abc", "Names": "web"})],
        }
    }

    #[test]
    fn each_form_of_format() {
        for (format, quiet, expected) in [
            (None, false, "CONTAINER ID   NAMES\nabc            web\n"),
            (None, true, "abc\n"),
            (Some("table {{.Names}}"), false, "NAMES\nweb\n"),
            (Some("{{.Names}}\\t{{.ID}}"), false, "web\tabc\n"),
            (Some("json"), false, "{\"ID\":\"abc\",\"Names\":\"web\"}\n"),
        ] {
            assert_eq!(rows().render(format, quiet).unwrap(), expected, "{format:?}");
        }
        assert!(rows().render(Some("{{.Nope}}"), false).is_err());
        assert!(rows().render(Some("table {{.Nope}}"), false).is_err());
    }
}
