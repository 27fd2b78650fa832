//! Patterns over names, Go's `path.Match`: `*` and `?` stop at a slash, `[a-z]` and `[^a]` are classes, `\` takes away a meaning.

/// Whether all of `name` fits; `None` when the pattern is not well formed as far as it was read.
pub fn fits(pattern: &str, name: &str) -> Option<bool> {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    fit(&pattern, &name)
}

/// Iterative, with one way back, to the latest star: a pattern of stars alone would take exponential time otherwise.
fn fit(pattern: &[char], name: &[char]) -> Option<bool> {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            back = Some((p, n));
            p += 1;
            continue;
        }
        if n == name.len() && p == pattern.len() {
            return Some(true);
        }
        let step = if p < pattern.len() {
            one(&pattern[p..], name.get(n).copied())?
        } else {
            None
        };
        if let Some(length) = step {
            p += length;
            n += 1;
            continue;
        }
        // The latest star takes one more, unless that is a slash or there is none.
        match back {
            Some((star, from)) if from < name.len() && name[from] != '/' => {
                back = Some((star, from + 1));
                (p, n) = (star + 1, from + 1);
            }
            _ => return Some(false),
        }
    }
}

/// Whether the first element of the pattern fits a character, and how long it is. The outer `None` is a bad pattern.
#[expect(
    clippy::option_option,
    reason = "a bad pattern is another thing than one that does not fit"
)]
fn one(pattern: &[char], c: Option<char>) -> Option<Option<usize>> {
    match pattern {
        ['?', ..] => Some(c.filter(|c| *c != '/').map(|_| 1)),
        ['\\', literal, ..] => Some(c.filter(|c| c == literal).map(|_| 2)),
        ['\\'] => None,
        ['[', rest @ ..] => {
            let (is_in, length) = class(rest, c)?;
            Some(is_in.then_some(length + 1))
        }
        [literal, ..] => Some(c.filter(|c| c == literal).map(|_| 1)),
        [] => Some(None),
    }
}

/// What stands behind `[`: whether `c` is in it, and how long it is with its `]`.
fn class(text: &[char], c: Option<char>) -> Option<(bool, usize)> {
    let negated = text.first() == Some(&'^');
    let mut at = usize::from(negated);
    let mut is_in = false;
    let mut is_first = true;
    loop {
        if text.get(at)? == &']' && !is_first {
            return Some((c.is_some() && is_in != negated, at + 1));
        }
        is_first = false;
        let low = bound(text, &mut at)?;
        let high = if text.get(at) == Some(&'-') {
            at += 1;
            bound(text, &mut at)?
        } else {
            low
        };
        is_in |= c.is_some_and(|c| (low..=high).contains(&c));
    }
}

fn bound(text: &[char], at: &mut usize) -> Option<char> {
    let mut c = *text.get(*at)?;
    if c == '-' || c == ']' {
        return None;
    }
    if c == '\\' {
        *at += 1;
        c = *text.get(*at)?;
    }
    *at += 1;
    Some(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_gos_path_match() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "aüb", true),
            ("a?b", "a/b", false),
            ("a[^a][^a]b", "aüb", false),
            ("[a-ζ]*", "α", true),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "x", false),
            ("host:5000/*/b", "host:5000/a/b", true),
        ] {
            assert_eq!(fits(pattern, name), Some(expected), "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn bad_patterns_are_told() {
        for (pattern, name) in [
            ("[]a]", "]"),
            ("[-]", "-"),
            ("[x-]", "x"),
            ("a[", "ab"),
            ("[", "a"),
            ("\\", "a"),
        ] {
            assert_eq!(fits(pattern, name), None, "{pattern:?}");
        }
    }

    #[test]
    fn stars_do_not_take_for_ever() {
        let (pattern, name) = ("*a".repeat(200) + "b", "a".repeat(2000));
        assert_eq!(fits(&pattern, &name), Some(false));
    }
}
