//! Go's `text/template`, as far as `--format` needs it, over JSON values.
//!
//! ```text
//! text ─ lex ─► tokens ─ parse ─► nodes ─ eval(value) ─► text
//! ```
//!
//! Actions: `{{pipeline}}`, `if`/`else if`/`else`, `range`, `with`, variables, comments, `{{-` and `-}}`. Functions are in
//! [`functions`]. A template is foreign text: depth and output are bounded, and nothing in it panics.

mod eval;
mod functions;
mod lex;
mod parse;

use serde_json::Value;

/// A member that templates ask with an argument, `{{.Label "key"}}`, as docker's lists have it: an object of labels, or null
/// where the heading of a column is wanted. No `json` prints it.
pub const LABEL: &str = "Label";

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

/// What is wrong with a template, or with the data it met, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: {line}:{column}: {message}")]
pub struct Error {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl Error {
    fn at(position: lex::Position, message: impl Into<String>) -> Error {
        Error {
            line: position.line,
            column: position.column,
            message: message.into(),
        }
    }
}

impl Template {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Template, Error> {
        Ok(Template {
            nodes: parse::parse(&lex::lex(text)?)?,
        })
    }

    /// Fills in `value`, which is `.` and `$`.
    pub fn render(&self, value: &Value) -> Result<String, Error> {
        eval::render(&self.nodes, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn render(text: &str) -> Result<String, Error> {
        let value = json!({
            "ID": "abc", "Names": ["web", "www"], "Labels": {"b": "2", "a": "1"}, "State": {"Running": true, "Pid": 42},
            "Empty": [], "Null": null, "Label": {"app": "x"}, "Size": 1.5,
        });
        Template::parse(text)?.render(&value)
    }

    #[test]
    fn templates_mean_what_they_mean_in_go() {
        for (text, expected) in [
            ("plain", "plain"),
            (
                r#"{{.Label "app"}}|{{.Label "none"}}|{{.Label "app" | upper}}"#,
                "x||X",
            ),
            ("{{.ID}}", "abc"),
            ("{{ .State.Pid }}!", "42!"),
            ("{{json .Names}}", r#"["web","www"]"#),
            ("{{.Names}}", "[web www]"),
            ("{{.Labels}}", "map[a:1 b:2]"),
            ("{{.Null}}", "<no value>"),
            ("{{.Size}}", "1.5"),
            ("{{join .Names \",\"}}", "web,www"),
            ("{{upper .ID}} {{.ID | title}} {{lower \"ABC\"}}", "ABC Abc abc"),
            ("{{range .Names}}<{{.}}>{{end}}", "<web><www>"),
            ("{{range $i, $n := .Names}}{{$i}}={{$n}} {{end}}", "0=web 1=www "),
            ("{{range $k, $v := .Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if .Empty}}a{{else if eq .ID \"abc\"}}b{{else}}c{{end}}", "b"),
            ("{{with .State}}{{.Pid}} {{$.ID}}{{end}}", "42 abc"),
            ("{{$x := .ID}}{{$x}}{{$x = \"y\"}}{{$x}}", "abcy"),
            ("a {{- .ID -}} b", "aabcb"),
            ("{{/* nothing */}}x", "x"),
            (
                "{{len .Names}} {{index .Names 1}} {{index .Labels \"b\"}}",
                "2 www 2",
            ),
            ("{{(index .Names 0) | upper}}", "WEB"),
            ("{{split \"a/b\" \"/\" | json}}", r#"["a","b"]"#),
            (
                "{{printf \"%s-%05d|%-5s|%q|%v|%x\" .ID 42 \"l\" \"q\" true 255}}",
                "abc-00042|l    |\"q\"|true|ff",
            ),
            ("{{println .ID 1}}", "abc 1\n"),
            ("{{print \"a\" 1 2 \"b\"}}", "a1 2b"),
            ("{{and true .ID}} {{or \"\" \"x\"}} {{not false}}", "abc x true"),
            ("{{if and (gt .State.Pid 1) (lt .State.Pid 100)}}in{{end}}", "in"),
            ("{{`raw \\n`}}", "raw \\n"),
            ("{{\"tab\\t\"}}", "tab\t"),
            ("{{eq 1 2 3 1}} {{ne 1 2}}", "true true"),
            (
                "{{slice .ID 1 2}} {{truncate .ID 2}} {{pad .ID 1 1}}",
                "b ab  abc ",
            ),
            (
                "{{range .Names}}{{if eq . \"www\"}}{{break}}{{end}}{{.}}{{end}}",
                "web",
            ),
        ] {
            assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors_say_where() {
        for (text, line, part) in [
            ("{{.Nope}}", 1, "Nope"),
            ("x\n{{.ID", 2, "unclosed"),
            ("{{if .ID}}", 1, "end"),
            ("{{end}}", 1, "end"),
            ("{{nope .ID}}", 1, "function \"nope\""),
            ("{{$x}}", 1, "variable"),
            ("{{.ID.Sub}}", 1, "Sub"),
            ("{{index .Names 9}}", 1, "range"),
            ("{{\"open}}", 1, "string"),
            ("{{template \"x\"}}", 1, "not supported"),
            ("{{break}}", 1, "break"),
        ] {
            let error = render(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.message.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(render(&"{{if .ID}}".repeat(10_000)).is_err());
        assert!(render(&format!("{{{{{}1{}}}}}", "(".repeat(10_000), ")".repeat(10_000))).is_err());
        assert!(render("{{printf \"%999999999d\" 1}}").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_rendered_or_refused(text in "\\PC{0,60}") {
            let _ = render(&text);
        }

        #[test]
        fn any_action_is_rendered_or_refused(parts in proptest::collection::vec(proptest::sample::select(vec![
            "{{", "}}", "{{-", "-}}", ".", ".ID", ".Names", "$", "$x", ":=", "=", "|", "(", ")", "range", "if", "else",
            "end", "with", "index", "printf", "slice", "pad", "len", "\"%d\"", "\"", "1", "-9223372036854775808", "1e400", " ", "json", "eq", ",", "break",
        ]), 0..16)) {
            let _ = render(&parts.concat());
            let _ = render(&format!("{{{{{}}}}}", parts.join(" ")));
        }
    }
}
