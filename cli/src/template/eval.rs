//! Nodes and a value into text.

use serde_json::Value;

use super::Error;
use super::functions;
use super::lex::Position;
use super::parse::{Base, Command, Node, Operand, Pipeline};

/// Bytes a template may produce; nested ranges could otherwise fill memory.
const OUTPUT_MAX: usize = 64 << 20;

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String, Error> {
    let mut eval = Eval {
        out: String::new(),
        variables: vec![(String::new(), value.clone())],
    };
    eval.block(nodes, value)?;
    Ok(eval.out)
}

struct Eval {
    out: String,
    /// Innermost last.
    variables: Vec<(String, Value)>,
}

enum Flow {
    On,
    Break,
    Continue,
}

impl Eval {
    fn block(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Error> {
        let scope = self.variables.len();
        let flow = self.nodes(nodes, dot);
        self.variables.truncate(scope);
        flow
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Error> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::On
                }
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&functions::show(&value));
                    }
                    if self.out.len() > OUTPUT_MAX {
                        return Err(Error::at(pipeline.at, "output is too long"));
                    }
                    Flow::On
                }
                Node::If(pipeline, then, otherwise) => {
                    let scope = self.variables.len();
                    let holds = functions::is_true(&self.pipeline(pipeline, dot)?);
                    let flow = self.block(if holds { then } else { otherwise }, dot)?;
                    self.variables.truncate(scope);
                    flow
                }
                Node::With(pipeline, then, otherwise) => {
                    let scope = self.variables.len();
                    let value = self.pipeline(pipeline, dot)?;
                    let flow = if functions::is_true(&value) {
                        self.block(then, &value)?
                    } else {
                        self.block(otherwise, dot)?
                    };
                    self.variables.truncate(scope);
                    flow
                }
                Node::Range(pipeline, then, otherwise) => self.range(pipeline, then, otherwise, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if !matches!(flow, Flow::On) {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        then: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, Error> {
        let over = self.commands(pipeline, dot)?;
        let items: Vec<(Value, Value)> = match over {
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(i, item)| (i.into(), item))
                .collect(),
            Value::Object(map) => {
                let mut items: Vec<_> = map.into_iter().collect();
                // Go visits maps in the order of their keys.
                items.sort_by(|a, b| a.0.cmp(&b.0));
                items
                    .into_iter()
                    .map(|(key, value)| (key.into(), value))
                    .collect()
            }
            Value::Null => Vec::new(),
            other => {
                return Err(Error::at(
                    pipeline.at,
                    format!("range over {}", functions::kind(&other)),
                ));
            }
        };
        if items.is_empty() {
            return self.block(otherwise, dot);
        }
        for (key, item) in items {
            let scope = self.variables.len();
            match pipeline.variables.as_slice() {
                [value] => self.set(pipeline, value, item.clone())?,
                [index, value] => {
                    self.set(pipeline, index, key)?;
                    self.set(pipeline, value, item.clone())?;
                }
                _ => {}
            }
            let flow = self.block(then, &item)?;
            self.variables.truncate(scope);
            if self.out.len() > OUTPUT_MAX {
                return Err(Error::at(pipeline.at, "output is too long"));
            }
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, pipeline: &Pipeline, name: &str, value: Value) -> Result<(), Error> {
        if pipeline.declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        *self.variable(pipeline.at, name)? = value;
        Ok(())
    }

    fn variable(&mut self, at: Position, name: &str) -> Result<&mut Value, Error> {
        let found = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value)
            .ok_or_else(|| Error::at(at, format!("undefined variable \"${name}\"")))
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Error> {
        let value = self.commands(pipeline, dot)?;
        if let Some(name) = pipeline.variables.first() {
            if pipeline.variables.len() > 1 {
                return Err(Error::at(pipeline.at, "two variables outside of range"));
            }
            self.set(pipeline, name, value.clone())?;
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Error> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, dot, piped)?);
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn command(&mut self, command: &Command, dot: &Value, piped: Option<Value>) -> Result<Value, Error> {
        let mut arguments = Vec::with_capacity(command.arguments.len() + 1);
        for operand in &command.arguments {
            let value = self.operand(operand, dot)?;
            // `and` and `or` stop at the argument that decides, so that `and .A .A.B` is safe.
            match command.function.as_deref() {
                Some("and") if !functions::is_true(&value) => return Ok(value),
                Some("or") if functions::is_true(&value) => return Ok(value),
                _ => arguments.push(value),
            }
        }
        arguments.extend(piped);
        match &command.function {
            None if command.arguments.len() == 2 => functions::label(&arguments[0], &arguments[1])
                .map_err(|message| Error::at(command.at, message)),
            Some(name) => functions::call(name, arguments).map_err(|message| Error::at(command.at, message)),
            None => Ok(arguments.pop().unwrap_or(Value::Null)),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Error> {
        let at = operand.at;
        let value = match &operand.base {
            Base::Dot => return fields(at, dot, &operand.fields),
            Base::Variable(name) => return fields(at, self.variable(at, name)?, &operand.fields),
            Base::Literal(value) => return fields(at, value, &operand.fields),
            Base::Pipeline(pipeline) => self.pipeline(pipeline, dot)?,
            Base::Call(name) => {
                functions::call(name, Vec::new()).map_err(|message| Error::at(at, message))?
            }
        };
        fields(at, &value, &operand.fields)
    }
}

fn fields(at: Position, value: &Value, names: &[String]) -> Result<Value, Error> {
    let mut value = value;
    for name in names {
        value = match value {
            Value::Object(map) => map
                .get(name)
                .ok_or_else(|| Error::at(at, format!("there is no field {name:?}")))?,
            other => {
                return Err(Error::at(
                    at,
                    format!("there is no field {name:?} in {}", functions::kind(other)),
                ));
            }
        };
    }
    Ok(value.clone())
}
