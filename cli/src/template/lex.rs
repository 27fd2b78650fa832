//! Text into tokens.

use super::Error;

/// Where a token begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub line: usize,
    pub column: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Outside of actions.
    Text(String),
    Open,
    Close,
    /// `.Name`, with whether a space stands before it: `a .B` are two operands, `a.B` is one.
    Field(String, bool),
    Dot,
    /// `$` or `$name`.
    Variable(String),
    Word(String),
    Str(String),
    Int(i64),
    Float(f64),
    Pipe,
    LeftParen,
    RightParen,
    Declare,
    Assign,
    Comma,
}

pub(super) type Spanned = (Position, Token);

struct Lexer<'a> {
    rest: &'a str,
    position: Position,
    tokens: Vec<Spanned>,
}

pub(super) fn lex(text: &str) -> Result<Vec<Spanned>, Error> {
    let mut lexer = Lexer {
        rest: text,
        position: Position { line: 1, column: 1 },
        tokens: Vec::new(),
    };
    let mut trims_next = false;
    while !lexer.rest.is_empty() {
        let end = lexer.rest.find("{{").unwrap_or(lexer.rest.len());
        let start = lexer.position;
        let mut text = lexer.take(end);
        if trims_next {
            text = text.trim_start();
        }
        let opens = !lexer.rest.is_empty();
        let open = lexer.position;
        if opens {
            lexer.take(2);
            if lexer.rest.starts_with('-') && lexer.rest[1..].starts_with(char::is_whitespace) {
                lexer.take(1);
                text = text.trim_end();
            }
        }
        if !text.is_empty() {
            lexer.tokens.push((start, Token::Text(text.to_owned())));
        }
        if opens {
            trims_next = lexer.action(open)?;
        }
    }
    Ok(lexer.tokens)
}

impl<'a> Lexer<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            if c == '\n' {
                self.position = Position {
                    line: self.position.line + 1,
                    column: 1,
                };
            } else {
                self.position.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    fn while_matches(&mut self, matches: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !matches(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    /// Everything up to and with `}}`; whether text after it is trimmed.
    fn action(&mut self, open: Position) -> Result<bool, Error> {
        let trimmed = self.rest.trim_start();
        if trimmed.starts_with("/*") {
            let end = self
                .rest
                .find("*/")
                .ok_or_else(|| Error::at(open, "unclosed comment"))?;
            self.take(end + 2);
            self.while_matches(char::is_whitespace);
            let trims = self.rest.starts_with("-}}");
            if !trims && !self.rest.starts_with("}}") {
                return Err(Error::at(self.position, "comment is not followed by }}"));
            }
            self.take(if trims { 3 } else { 2 });
            return Ok(trims);
        }
        self.tokens.push((open, Token::Open));
        loop {
            let spaced = !self.while_matches(char::is_whitespace).is_empty();
            let at = self.position;
            if self.rest.is_empty() {
                return Err(Error::at(open, "unclosed action"));
            }
            let trims = spaced && self.rest.starts_with("-}}");
            if trims || self.rest.starts_with("}}") {
                self.take(if trims { 3 } else { 2 });
                self.tokens.push((at, Token::Close));
                return Ok(trims);
            }
            let token = self.token(spaced)?;
            self.tokens.push((at, token));
        }
    }

    fn token(&mut self, spaced: bool) -> Result<Token, Error> {
        let at = self.position;
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let first = self.rest.chars().next().unwrap_or(' ');
        let simple = match first {
            '|' => Some(Token::Pipe),
            '(' => Some(Token::LeftParen),
            ')' => Some(Token::RightParen),
            ',' => Some(Token::Comma),
            '=' => Some(Token::Assign),
            _ => None,
        };
        if let Some(token) = simple {
            self.take(1);
            return Ok(token);
        }
        match first {
            ':' if self.rest.starts_with(":=") => {
                self.take(2);
                Ok(Token::Declare)
            }
            '.' => {
                self.take(1);
                let name = self.while_matches(is_name);
                Ok(if name.is_empty() {
                    Token::Dot
                } else {
                    Token::Field(name.to_owned(), spaced)
                })
            }
            '$' => {
                self.take(1);
                Ok(Token::Variable(self.while_matches(is_name).to_owned()))
            }
            '"' => self.quoted(at),
            '`' => {
                self.take(1);
                let end = self
                    .rest
                    .find('`')
                    .ok_or_else(|| Error::at(at, "unclosed string"))?;
                let text = self.take(end).to_owned();
                self.take(1);
                Ok(Token::Str(text))
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' => self.number(at),
            c if is_name(c) => Ok(Token::Word(self.while_matches(is_name).to_owned())),
            c => Err(Error::at(at, format!("unexpected character {c:?}"))),
        }
    }

    fn number(&mut self, at: Position) -> Result<Token, Error> {
        let text = self
            .while_matches(|c| c.is_alphanumeric() || "+-._".contains(c))
            .replace('_', "");
        let int = match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        if let Ok(int) = int {
            return Ok(Token::Int(int));
        }
        match text.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(Token::Float(float)),
            _ => Err(Error::at(at, format!("bad number {text:?}"))),
        }
    }

    fn quoted(&mut self, at: Position) -> Result<Token, Error> {
        self.take(1);
        let mut text = String::new();
        loop {
            let unclosed = || Error::at(at, "unclosed string");
            let c = self.rest.chars().next().ok_or_else(unclosed)?;
            self.take(c.len_utf8());
            match c {
                '"' => return Ok(Token::Str(text)),
                '\n' => return Err(unclosed()),
                '\\' => {
                    let c = self.rest.chars().next().ok_or_else(unclosed)?;
                    self.take(c.len_utf8());
                    text.push(match c {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        '\\' | '"' | '\'' => c,
                        other => return Err(Error::at(at, format!("string holds unknown escape \\{other}"))),
                    });
                }
                c => text.push(c),
            }
        }
    }
}
