//! Tokens into nodes.

use serde_json::Value;

use super::functions;
use super::lex::{Position, Spanned, Token};
use super::{Error, LABEL};

/// Blocks and parentheses inside one another; deeper templates are refused, so that evaluation cannot exhaust the stack.
const DEPTH_MAX: usize = 100;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

/// Commands joined by `|`, perhaps kept in variables.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub at: Position,
    pub variables: Vec<String>,
    /// `:=` rather than `=`.
    pub declares: bool,
    pub commands: Vec<Command>,
}

/// A function with arguments, or one operand.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub at: Position,
    pub function: Option<String>,
    pub arguments: Vec<Operand>,
}

/// A value and the fields taken of it.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub at: Position,
    pub base: Base,
    pub fields: Vec<String>,
}

impl Operand {
    /// Whether it is the one member that takes an argument.
    fn is_method(&self) -> bool {
        self.fields.last().is_some_and(|name| name == LABEL)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(Value),
    Pipeline(Box<Pipeline>),
    /// A function without arguments among arguments.
    Call(String),
}

pub(super) fn parse(tokens: &[Spanned]) -> Result<Vec<Node>, Error> {
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
        loops: 0,
    };
    let (nodes, ending) = parser.block()?;
    match ending {
        Ending::Eof => Ok(nodes),
        Ending::End(at) => Err(Error::at(at, "unexpected {{end}}")),
        Ending::Else(at) => Err(Error::at(at, "unexpected {{else}}")),
    }
}

struct Parser<'a> {
    tokens: &'a [Spanned],
    next: usize,
    depth: usize,
    loops: usize,
}

enum Ending {
    Eof,
    End(Position),
    /// The position is just behind the word `else`.
    Else(Position),
}

type Make = fn(Pipeline, Vec<Node>, Vec<Node>) -> Node;

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn position(&self) -> Position {
        let last = self.tokens.get(self.next).or(self.tokens.last());
        last.map_or(Position { line: 1, column: 1 }, |(at, _)| *at)
    }

    fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn word(&mut self) -> Option<String> {
        match self.peek() {
            Some(Token::Word(word)) => Some(word.clone()),
            _ => None,
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        if self.eat(&Token::Close) {
            Ok(())
        } else {
            Err(Error::at(self.position(), "expected }}"))
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth >= DEPTH_MAX {
            return Err(Error::at(
                self.position(),
                format!("nested deeper than {DEPTH_MAX} levels"),
            ));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn block(&mut self) -> Result<(Vec<Node>, Ending), Error> {
        let mut nodes = Vec::new();
        loop {
            let at = self.position();
            match self.peek() {
                None => return Ok((nodes, Ending::Eof)),
                Some(Token::Text(text)) => {
                    nodes.push(Node::Text(text.clone()));
                    self.next += 1;
                    continue;
                }
                _ => self.next += 1,
            }
            match self.word().as_deref() {
                Some("end") => {
                    self.next += 1;
                    self.close()?;
                    return Ok((nodes, Ending::End(at)));
                }
                Some("else") => {
                    self.next += 1;
                    return Ok((nodes, Ending::Else(at)));
                }
                Some(word @ ("if" | "with" | "range")) => {
                    let is_range = word == "range";
                    let make: Make = match word {
                        "if" => Node::If,
                        "with" => Node::With,
                        _ => Node::Range,
                    };
                    self.next += 1;
                    self.loops += usize::from(is_range);
                    let node = self.deeper(|parser| parser.branches(at, make, is_range))?;
                    nodes.push(node);
                }
                Some(word @ ("break" | "continue")) => {
                    if self.loops == 0 {
                        return Err(Error::at(at, format!("{{{{{word}}}}} outside of {{{{range}}}}")));
                    }
                    nodes.push(if word == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                    self.next += 1;
                    self.close()?;
                }
                Some(word @ ("template" | "define" | "block")) => {
                    return Err(Error::at(at, format!("{{{{{word}}}}} is not supported")));
                }
                _ => {
                    nodes.push(Node::Action(self.pipeline()?));
                    self.close()?;
                }
            }
        }
    }

    fn branches(&mut self, at: Position, make: Make, is_range: bool) -> Result<Node, Error> {
        let pipeline = self.pipeline()?;
        self.close()?;
        let (then, ending) = self.block()?;
        self.loops -= usize::from(is_range);
        let unclosed = || Error::at(at, "{{end}} is missing");
        let otherwise = match ending {
            Ending::Eof => return Err(unclosed()),
            Ending::End(_) => Vec::new(),
            Ending::Else(else_at) => match self.word().as_deref() {
                Some(word @ ("if" | "with")) => {
                    let make: Make = if word == "if" { Node::If } else { Node::With };
                    self.next += 1;
                    // The inner one takes the shared {{end}}.
                    vec![self.deeper(|parser| parser.branches(else_at, make, false))?]
                }
                _ => {
                    self.close()?;
                    match self.block()? {
                        (nodes, Ending::End(_)) => nodes,
                        (_, Ending::Else(at)) => return Err(Error::at(at, "a second {{else}}")),
                        (_, Ending::Eof) => return Err(unclosed()),
                    }
                }
            },
        };
        Ok(make(pipeline, then, otherwise))
    }

    fn pipeline(&mut self) -> Result<Pipeline, Error> {
        let at = self.position();
        let (variables, declares) = self.variables()?;
        let mut commands = vec![self.command()?];
        while self.eat(&Token::Pipe) {
            let command = self.command()?;
            if command.function.is_none() {
                return Err(Error::at(command.at, "only a function can follow |"));
            }
            commands.push(command);
        }
        Ok(Pipeline {
            at,
            variables,
            declares,
            commands,
        })
    }

    /// `$x :=`, `$x =`, or for range `$i, $x :=`.
    fn variables(&mut self) -> Result<(Vec<String>, bool), Error> {
        let start = self.next;
        let mut names = Vec::new();
        while let Some(Token::Variable(name)) = self.peek() {
            names.push(name.clone());
            self.next += 1;
            if self.eat(&Token::Declare) || self.peek() == Some(&Token::Assign) {
                let declares = !self.eat(&Token::Assign);
                if names.len() > 2 || names.iter().any(String::is_empty) {
                    return Err(Error::at(self.position(), "bad variable declaration"));
                }
                return Ok((names, declares));
            }
            if !self.eat(&Token::Comma) {
                break;
            }
        }
        self.next = start;
        Ok((Vec::new(), true))
    }

    fn command(&mut self) -> Result<Command, Error> {
        let at = self.position();
        let mut function = None;
        if let Some(word) = self.word()
            && literal_word(&word).is_none()
        {
            check_function(at, &word)?;
            self.next += 1;
            function = Some(word);
        }
        let mut arguments = Vec::new();
        while let Some(operand) = self.operand()? {
            arguments.push(operand);
        }
        match (&function, arguments.len()) {
            (None, 0) => Err(Error::at(self.position(), "expected a value or function")),
            (None, 2) if arguments[0].is_method() => Ok(Command {
                at,
                function,
                arguments,
            }),
            (None, 2..) => Err(Error::at(at, "a value is no function and takes no arguments")),
            _ => Ok(Command {
                at,
                function,
                arguments,
            }),
        }
    }

    fn operand(&mut self) -> Result<Option<Operand>, Error> {
        let at = self.position();
        let Some(token) = self.peek().cloned() else {
            return Ok(None);
        };
        let mut fields = Vec::new();
        let base = match token {
            Token::Dot => Base::Dot,
            Token::Field(name, _) => {
                fields.push(name);
                Base::Dot
            }
            Token::Variable(name) => Base::Variable(name),
            Token::Str(text) => Base::Literal(Value::String(text)),
            Token::Int(int) => Base::Literal(int.into()),
            Token::Float(float) => Base::Literal(float.into()),
            Token::Word(word) => match literal_word(&word) {
                Some(value) => Base::Literal(value),
                None => {
                    check_function(at, &word)?;
                    Base::Call(word)
                }
            },
            Token::LeftParen => {
                self.next += 1;
                let inner = self.deeper(Self::pipeline)?;
                if self.peek() != Some(&Token::RightParen) {
                    return Err(Error::at(self.position(), "expected )"));
                }
                Base::Pipeline(Box::new(inner))
            }
            _ => return Ok(None),
        };
        self.next += 1;
        while let Some(Token::Field(name, false)) = self.peek() {
            fields.push(name.clone());
            self.next += 1;
        }
        Ok(Some(Operand { at, base, fields }))
    }
}

fn literal_word(word: &str) -> Option<Value> {
    match word {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        "nil" => Some(Value::Null),
        _ => None,
    }
}

fn check_function(at: Position, word: &str) -> Result<(), Error> {
    if functions::NAMES.contains(&word) {
        Ok(())
    } else {
        Err(Error::at(at, format!("function {word:?} is not defined")))
    }
}
