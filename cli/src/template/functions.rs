//! What templates can call: Go's built-in functions and docker's.

use std::cmp::Ordering;
use std::fmt::Write;

use serde_json::Value;

pub(super) const NAMES: &[&str] = &[
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad",
    "print", "printf", "println", "slice", "split", "title", "truncate", "upper",
];

/// Columns `printf` and `pad` may ask for.
const WIDTH_MAX: usize = 10_000;

type Result<T, E = String> = std::result::Result<T, E>;

/// `.Label "key"`: the label's value, empty without one; over null the heading docker gives such a column.
pub(super) fn label(labels: &Value, key: &Value) -> Result<Value> {
    let Value::String(key) = key else {
        return Err(format!("Label wants a string, not {}", kind(key)));
    };
    match labels {
        Value::Null => {
            let last = key.rsplit('.').next().unwrap_or(key);
            Ok(last.replace(['-', '_'], " ").to_uppercase().into())
        }
        Value::Object(labels) => Ok(labels.get(key).cloned().unwrap_or_else(|| "".into())),
        other => Err(format!("Label of {}", kind(other))),
    }
}

/// Calls `name`; the error says what is wrong with the arguments.
pub(super) fn call(name: &str, mut arguments: Vec<Value>) -> Result<Value> {
    let count = arguments.len();
    let wants = |n: usize| match count == n {
        true => Ok(()),
        false => Err(format!("{name} takes {n} arguments, not {count}")),
    };
    match name {
        "and" | "or" => arguments.pop().ok_or_else(|| format!("{name} takes arguments")),
        "not" => wants(1).map(|()| Value::Bool(!is_true(&arguments[0]))),
        "eq" if count >= 2 => Ok(arguments[1..]
            .iter()
            .any(|other| equal(&arguments[0], other))
            .into()),
        "ne" => wants(2).map(|()| (!equal(&arguments[0], &arguments[1])).into()),
        "lt" | "le" | "gt" | "ge" => {
            wants(2)?;
            let order = compare(&arguments[0], &arguments[1])?;
            Ok(Value::Bool(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
        "json" => {
            wants(1)?;
            serde_json::to_string(&arguments[0])
                .map(Value::String)
                .map_err(|e| e.to_string())
        }
        "len" => {
            wants(1)?;
            match &arguments[0] {
                Value::String(s) => Ok(s.len().into()),
                Value::Array(a) => Ok(a.len().into()),
                Value::Object(o) => Ok(o.len().into()),
                other => Err(format!("len of {}", kind(other))),
            }
        }
        "index" if count >= 1 => index(&arguments),
        "slice" if (1..=3).contains(&count) => slice(&arguments),
        "join" => {
            wants(2)?;
            match &arguments[0] {
                Value::Array(a) => Ok(a
                    .iter()
                    .map(show)
                    .collect::<Vec<_>>()
                    .join(text(&arguments[1])?)
                    .into()),
                Value::Null => Ok("".into()),
                other => Err(format!("join of {}", kind(other))),
            }
        }
        "split" => {
            wants(2)?;
            let parts = text(&arguments[0])?.split(text(&arguments[1])?);
            Ok(parts.map(Value::from).collect())
        }
        "lower" => wants(1).and_then(|()| Ok(text(&arguments[0])?.to_lowercase().into())),
        "upper" => wants(1).and_then(|()| Ok(text(&arguments[0])?.to_uppercase().into())),
        "title" => wants(1).and_then(|()| Ok(title(text(&arguments[0])?).into())),
        "truncate" => {
            wants(2)?;
            Ok(text(&arguments[0])?
                .chars()
                .take(size(&arguments[1])?)
                .collect::<String>()
                .into())
        }
        "pad" => {
            wants(3)?;
            let (before, after) = (bounded(&arguments[1])?, bounded(&arguments[2])?);
            Ok(format!(
                "{}{}{}",
                " ".repeat(before),
                text(&arguments[0])?,
                " ".repeat(after)
            )
            .into())
        }
        "print" => Ok(print(&arguments).into()),
        "println" => Ok((arguments.iter().map(show).collect::<Vec<_>>().join(" ") + "\n").into()),
        "printf" if count >= 1 => printf(&arguments),
        _ => Err(format!("wrong number of arguments for {name}")),
    }
}

/// Go's rule: not zero and not empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// As Go's `%v`.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(a) => format!("[{}]", a.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(o) => {
            let mut items: Vec<_> = o
                .iter()
                .map(|(key, value)| format!("{key}:{}", show(value)))
                .collect();
            items.sort();
            format!("map[{}]", items.join(" "))
        }
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn text(value: &Value) -> Result<&str> {
    value
        .as_str()
        .ok_or_else(|| format!("expected a string, found {}", kind(value)))
}

fn size(value: &Value) -> Result<usize> {
    let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| format!("expected a count, found {}", show(value)))
}

fn bounded(value: &Value) -> Result<usize> {
    size(value).and_then(|n| {
        if n <= WIDTH_MAX {
            Ok(n)
        } else {
            Err(format!("width {n} is too large"))
        }
    })
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn compare(a: &Value, b: &Value) -> Result<Ordering> {
    let order = match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => Some(x.cmp(&y)),
            _ => x.as_f64().partial_cmp(&y.as_f64()),
        },
        (Value::String(x), Value::String(y)) => Some(x.cmp(y)),
        _ => None,
    };
    order.ok_or_else(|| format!("cannot compare {} with {}", kind(a), kind(b)))
}

fn index(arguments: &[Value]) -> Result<Value> {
    let mut value = &arguments[0];
    let nothing = Value::Null;
    for key in &arguments[1..] {
        value = match value {
            Value::Array(a) => a
                .get(size(key)?)
                .ok_or_else(|| format!("index out of range: {}", show(key)))?,
            Value::Object(o) => o.get(text(key)?).unwrap_or(&nothing),
            other => return Err(format!("index of {}", kind(other))),
        };
    }
    Ok(value.clone())
}

fn slice(arguments: &[Value]) -> Result<Value> {
    let bound = |i: usize, default: usize| arguments.get(i).map_or(Ok(default), size);
    let out = || "slice out of range".to_owned();
    match &arguments[0] {
        Value::String(s) => {
            let range = bound(1, 0)?..bound(2, s.len())?;
            s.get(range).map(Value::from).ok_or_else(out)
        }
        Value::Array(a) => {
            let range = bound(1, 0)?..bound(2, a.len())?;
            a.get(range)
                .map(|part| Value::Array(part.to_vec()))
                .ok_or_else(out)
        }
        other => Err(format!("slice of {}", kind(other))),
    }
}

fn title(text: &str) -> String {
    let mut begins = true;
    text.chars()
        .flat_map(|c| {
            let upper = begins && c.is_alphabetic();
            begins = !c.is_alphanumeric() && c != '\'';
            if upper {
                c.to_uppercase().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// Spaces go between operands when neither is a string.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    for (i, value) in arguments.iter().enumerate() {
        if i > 0 && !value.is_string() && !arguments[i - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&show(value));
    }
    out
}

fn printf(arguments: &[Value]) -> Result<Value> {
    let mut out = String::new();
    let mut values = arguments[1..].iter();
    let mut chars = text(&arguments[0])?.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "-+# 0".contains(*c)) {
            flags.push(flag);
        }
        let mut number = || -> Result<Option<usize>> {
            let mut n: Option<usize> = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                let next = n.unwrap_or(0) * 10 + digit as usize;
                if next > WIDTH_MAX {
                    return Err(format!("printf: width {next} is too large"));
                }
                n = Some(next);
            }
            Ok(n)
        };
        let width = number()?.unwrap_or(0);
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            let mut n = 0_usize;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                n = (n * 10 + digit as usize).min(WIDTH_MAX);
            }
            precision = Some(n);
        }
        let verb = chars.next().ok_or("printf: % at the end")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values
            .next()
            .ok_or_else(|| format!("printf: no value for %{verb}"))?;
        let body = format_verb(verb, value, precision)?;
        let fill = width.saturating_sub(body.chars().count());
        if flags.contains('-') {
            let _ = write!(out, "{body}{}", " ".repeat(fill));
        } else if flags.contains('0') && "dfxXob".contains(verb) {
            let (sign, digits) = body
                .strip_prefix('-')
                .map_or(("", body.as_str()), |digits| ("-", digits));
            let _ = write!(out, "{sign}{}{digits}", "0".repeat(fill));
        } else {
            let _ = write!(out, "{}{body}", " ".repeat(fill));
        }
    }
    if values.next().is_some() {
        return Err("printf: more values than verbs".to_owned());
    }
    Ok(out.into())
}

fn format_verb(verb: char, value: &Value, precision: Option<usize>) -> Result<String> {
    let wrong = || format!("printf: %{verb} cannot print {}", kind(value));
    let int = || value.as_i64().ok_or_else(wrong);
    Ok(match verb {
        'v' => show(value),
        's' => {
            let shown = show(value);
            precision.map_or(shown.clone(), |n| shown.chars().take(n).collect())
        }
        'q' => format!("{:?}", show(value)),
        't' => value.as_bool().ok_or_else(wrong)?.to_string(),
        'd' => int()?.to_string(),
        'x' => match value {
            Value::String(s) => s.bytes().fold(String::new(), |mut out, byte| {
                let _ = write!(out, "{byte:02x}");
                out
            }),
            _ => format!("{:x}", int()?),
        },
        'X' => format!("{:X}", int()?),
        'o' => format!("{:o}", int()?),
        'b' => format!("{:b}", int()?),
        'f' => format!("{:.*}", precision.unwrap_or(6), value.as_f64().ok_or_else(wrong)?),
        'g' => value.as_f64().ok_or_else(wrong)?.to_string(),
        _ => return Err(format!("printf: unknown verb %{verb}")),
    })
}
