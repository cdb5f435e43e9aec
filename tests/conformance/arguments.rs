//! The arguments of a call, taken one by one in the order of PyTorch's signature, by position or by name.

use crate::sample::{self, Case};
use lazuli::prelude::*;
use lazuli::{IndexItem, Number};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// What Lazuli has not: the case is counted, not run.
#[derive(Debug)]
pub struct Unsupported(pub String);

/// What is left of a call's arguments.
pub struct Arguments<'a> {
    positional: VecDeque<Argument>,
    named: BTreeMap<&'a str, Argument>,
}

/// One argument.
#[derive(Clone, Debug)]
pub enum Argument {
    Tensor(Tensor),
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    None,
    DType(DType),
    Slice { start: Option<i64>, end: Option<i64>, step: Option<i64> },
    Ellipsis,
    List(Vec<Argument>),
}

impl Argument {
    fn new(json: &Value, tensors: &BTreeMap<&str, Tensor>) -> Result<Argument, Unsupported> {
        let strange = || Unsupported(format!("the argument {json}"));
        if let Some(name) = sample::tensor(json) {
            return tensors.get(name).cloned().map(Argument::Tensor).ok_or_else(strange);
        }
        match json {
            Value::Null => Ok(Argument::None),
            Value::Bool(b) => Ok(Argument::Bool(*b)),
            Value::Number(n) => match n.as_i64() {
                Some(i) => Ok(Argument::Int(i)),
                None => n.as_f64().map(Argument::Float).ok_or_else(strange),
            },
            Value::String(s) => Ok(Argument::Text(s.clone())),
            Value::Array(parts) => {
                parts.iter().map(|part| Argument::new(part, tensors)).collect::<Result<_, _>>().map(Argument::List)
            }
            Value::Object(fields) => match fields.iter().next().map(|(k, v)| (k.as_str(), v)).ok_or_else(strange)? {
                ("float", Value::String(s)) => s.parse().map(Argument::Float).map_err(|_| strange()),
                ("dtype", Value::String(s)) => {
                    DType::parse(s).map(Argument::DType).ok_or_else(|| Unsupported(s.to_owned()))
                }
                ("slice", Value::Array(bounds)) if bounds.len() == 3 => {
                    Ok(Argument::Slice { start: bounds[0].as_i64(), end: bounds[1].as_i64(), step: bounds[2].as_i64() })
                }
                ("ellipsis", _) => Ok(Argument::Ellipsis),
                _ => Err(strange()),
            },
        }
    }

    /// This argument as a part of an index.
    fn index(&self) -> Result<IndexItem, Unsupported> {
        match self {
            Argument::Tensor(t) => Ok(IndexItem::Tensor(t.clone())),
            Argument::List(parts) => Ok(lazuli::Index::item(integers("index", parts)?)),
            Argument::Int(i) => Ok(IndexItem::At(*i)),
            Argument::Slice { start, end, step } => {
                Ok(IndexItem::Range { start: *start, end: *end, step: step.unwrap_or(1) })
            }
            Argument::Ellipsis => Ok(IndexItem::Ellipsis),
            Argument::None => Ok(IndexItem::NewAxis),
            other => Err(Unsupported(format!("the index {other:?}"))),
        }
    }
}

/// The dims of a reduction, and whether they are kept.
pub struct Over {
    pub dims: Option<Vec<i64>>,
    pub keep: bool,
}

impl lazuli::Dims for Over {
    fn axes(&self, rank: usize) -> lazuli::Result<lazuli::Axes> {
        match (&self.dims, self.keep) {
            (None, false) => (..).axes(rank),
            (None, true) => keep(..).axes(rank),
            (Some(d), false) => d.axes(rank),
            (Some(d), true) => keep(d).axes(rank),
        }
    }
}

/// Dims as PyTorch takes them: absent for all, one, or several.
pub enum Dims {
    All,
    One(i64),
    Several(Vec<i64>),
}

impl Dims {
    pub fn new(argument: Option<Argument>) -> Result<Dims, Unsupported> {
        match argument {
            None | Some(Argument::None) => Ok(Dims::All),
            Some(Argument::Int(d)) => Ok(Dims::One(d)),
            Some(Argument::List(parts)) => Ok(Dims::Several(integers("dim", &parts)?)),
            other => Err(unsupported("dim", &other)),
        }
    }
}

impl<'a> Arguments<'a> {
    pub fn new(case: &'a Case, tensors: &BTreeMap<&str, Tensor>) -> Result<Arguments<'a>, Unsupported> {
        let positional = case.args.iter().map(|json| Argument::new(json, tensors)).collect::<Result<_, _>>()?;
        let named = case.kwargs.iter().map(|(name, json)| Ok((name.as_str(), Argument::new(json, tensors)?)));
        Ok(Arguments { positional, named: named.collect::<Result<_, _>>()? })
    }

    /// Fails where an argument is left: it would have had a meaning.
    pub fn finish(self) -> Result<(), Unsupported> {
        match (self.positional.front(), self.named.keys().next()) {
            (None, None) => Ok(()),
            (Some(_), _) => Err(Unsupported("another positional argument".into())),
            (_, Some(name)) => Err(Unsupported(format!("argument `{name}`"))),
        }
    }

    /// The next argument: by position while there are any, else by name; `None` where it is absent.
    pub fn next(&mut self, name: &str) -> Option<Argument> {
        self.positional.pop_front().or_else(|| self.named.remove(name))
    }

    /// What comes next, without taking it.
    pub fn peek(&self) -> Option<&Argument> {
        self.positional.front()
    }

    pub fn tensor(&mut self, name: &str) -> Result<Tensor, Unsupported> {
        match self.next(name) {
            Some(Argument::Tensor(t)) => Ok(t),
            other => Err(unsupported(name, &other)),
        }
    }

    /// A tensor that may be absent.
    pub fn optional_tensor(&mut self, name: &str) -> Result<Option<Tensor>, Unsupported> {
        match self.next(name) {
            Some(Argument::Tensor(t)) => Ok(Some(t)),
            None | Some(Argument::None) => Ok(None),
            other => Err(unsupported(name, &other)),
        }
    }

    /// A tensor or a number.
    pub fn operand(&mut self, name: &str) -> Result<Argument, Unsupported> {
        match self.next(name) {
            Some(a @ (Argument::Tensor(_) | Argument::Bool(_) | Argument::Int(_) | Argument::Float(_))) => Ok(a),
            other => Err(unsupported(name, &other)),
        }
    }

    pub fn integer(&mut self, name: &str) -> Result<i64, Unsupported> {
        match self.next(name) {
            Some(Argument::Int(i)) => Ok(i),
            other => Err(unsupported(name, &other)),
        }
    }

    /// An integer, or what counts where it is absent.
    pub fn integer_or(&mut self, name: &str, default: i64) -> Result<i64, Unsupported> {
        match self.next(name) {
            Some(Argument::Int(i)) => Ok(i),
            Some(Argument::Bool(b)) => Ok(b.into()),
            None | Some(Argument::None) => Ok(default),
            other => Err(unsupported(name, &other)),
        }
    }

    /// A number of its own kind, or 1 where it is absent.
    pub fn number(&mut self, name: &str) -> Result<Number, Unsupported> {
        match self.next(name) {
            Some(Argument::Float(v)) => Ok(v.into()),
            Some(Argument::Int(v)) => Ok(v.into()),
            Some(Argument::Bool(v)) => Ok(v.into()),
            None => Ok(1.into()),
            other => Err(unsupported(name, &other)),
        }
    }

    /// A number that may be absent.
    pub fn optional_float(&mut self, name: &str) -> Result<Option<f64>, Unsupported> {
        match self.next(name) {
            Some(Argument::Float(v)) => Ok(Some(v)),
            Some(Argument::Int(v)) => Ok(Some(v as f64)),
            None | Some(Argument::None) => Ok(None),
            other => Err(unsupported(name, &other)),
        }
    }

    /// Tensors in a list, or all that are left.
    pub fn tensors(&mut self, name: &str) -> Result<Vec<Tensor>, Unsupported> {
        let list = match self.next(name) {
            Some(Argument::List(parts)) => parts,
            Some(first) => [first].into_iter().chain(std::iter::from_fn(|| self.positional.pop_front())).collect(),
            None => Vec::new(),
        };
        let tensor = |part: Argument| match part {
            Argument::Tensor(t) => Ok(t),
            other => Err(unsupported(name, &Some(other))),
        };
        list.into_iter().map(tensor).collect()
    }

    /// A word, or what counts where it is absent.
    pub fn text(&mut self, name: &str, default: &str) -> Result<String, Unsupported> {
        match self.next(name) {
            Some(Argument::Text(text)) => Ok(text),
            None => Ok(default.to_owned()),
            other => Err(unsupported(name, &other)),
        }
    }

    /// `N` sizes: one for all or one for each, or what counts where they are absent.
    pub fn tuple<const N: usize>(&mut self, name: &str, default: usize) -> Result<[usize; N], Unsupported> {
        Ok(self.optional_tuple(name)?.unwrap_or([default; N]))
    }

    /// `N` sizes, that may be absent.
    pub fn optional_tuple<const N: usize>(&mut self, name: &str) -> Result<Option<[usize; N]>, Unsupported> {
        match Dims::new(self.next(name))? {
            Dims::All => Ok(None),
            Dims::One(n) => Ok(Some([n as usize; N])),
            Dims::Several(n) if n.is_empty() => Ok(None),
            Dims::Several(n) if n.len() == 1 => Ok(Some([n[0] as usize; N])),
            Dims::Several(n) => {
                let sizes: Vec<usize> = n.into_iter().map(|n| n as usize).collect();
                sizes.try_into().map(Some).map_err(|n| Unsupported(format!("sizes {n:?}")))
            }
        }
    }

    /// Two sizes.
    pub fn pair(&mut self, name: &str, default: usize) -> Result<[usize; 2], Unsupported> {
        self.tuple(name, default)
    }

    /// Numbers: one, several, or none.
    pub fn optional_list(&mut self, name: &str) -> Result<Option<Vec<f64>>, Unsupported> {
        let number = |part: &Argument| match part {
            Argument::Int(i) => Ok(*i as f64),
            Argument::Float(v) => Ok(*v),
            other => Err(unsupported(name, &Some(other.clone()))),
        };
        match self.next(name) {
            None | Some(Argument::None) => Ok(None),
            Some(Argument::List(parts)) => parts.iter().map(number).collect::<Result<_, _>>().map(Some),
            Some(one) => Ok(Some(vec![number(&one)?])),
        }
    }

    /// What comes next by position or else by name, without taking it.
    pub fn peek_named(&self, name: &str) -> Option<&Argument> {
        self.positional.front().or_else(|| self.named.get(name))
    }

    /// A loss's reduction.
    pub fn reduction(&mut self) -> Result<Reduction, Unsupported> {
        match self.text("reduction", "mean")?.as_str() {
            "none" => Ok(Reduction::None),
            "mean" => Ok(Reduction::Mean),
            "sum" => Ok(Reduction::Sum),
            "batchmean" => Ok(Reduction::BatchMean),
            other => Err(Unsupported(format!("reduction {other}"))),
        }
    }

    /// The dims of a reduction and whether they are kept; an empty list means all dims to PyTorch.
    pub fn over(&mut self) -> Result<Over, Unsupported> {
        let dims = match self.dims("dim")? {
            Dims::All => None,
            Dims::One(d) => Some(vec![d]),
            Dims::Several(d) => Some(d).filter(|d| !d.is_empty()),
        };
        Ok(Over { dims, keep: self.flag("keepdim")? })
    }

    /// A number, or what counts where it is absent.
    pub fn float(&mut self, name: &str, default: f64) -> Result<f64, Unsupported> {
        match self.next(name) {
            Some(Argument::Float(v)) => Ok(v),
            Some(Argument::Int(v)) => Ok(v as f64),
            None | Some(Argument::None) => Ok(default),
            other => Err(unsupported(name, &other)),
        }
    }

    /// False where it is absent.
    pub fn flag(&mut self, name: &str) -> Result<bool, Unsupported> {
        match self.next(name) {
            Some(Argument::Bool(b)) => Ok(b),
            None | Some(Argument::None) => Ok(false),
            other => Err(unsupported(name, &other)),
        }
    }

    pub fn dims(&mut self, name: &str) -> Result<Dims, Unsupported> {
        Dims::new(self.next(name))
    }

    /// A named argument, wherever its position is.
    pub fn named(&mut self, name: &str) -> Option<Argument> {
        self.named.remove(name)
    }

    /// A bound: a tensor or a number that may be absent.
    pub fn bound(&mut self, name: &str) -> Result<Option<Argument>, Unsupported> {
        match self.next(name) {
            None | Some(Argument::None) => Ok(None),
            Some(a @ (Argument::Tensor(_) | Argument::Bool(_) | Argument::Int(_) | Argument::Float(_))) => Ok(Some(a)),
            other => Err(unsupported(name, &other)),
        }
    }

    /// A list of integers, which a call may also spread over the positions that are left.
    pub fn sizes(&mut self, name: &str) -> Result<Vec<i64>, Unsupported> {
        match self.next(name) {
            Some(Argument::List(parts)) => integers(name, &parts),
            Some(first @ Argument::Int(_)) => {
                let rest = std::iter::from_fn(|| self.positional.pop_front());
                integers(name, &std::iter::once(first).chain(rest).collect::<Vec<_>>())
            }
            other => Err(unsupported(name, &other)),
        }
    }

    /// The dtype of the result, where the call asks for one.
    pub fn dtype(&mut self) -> Result<Option<DType>, Unsupported> {
        match self.named.remove("dtype") {
            None | Some(Argument::None) => Ok(None),
            Some(Argument::DType(d)) => Ok(Some(d)),
            other => Err(unsupported("dtype", &other)),
        }
    }

    /// The parts of an index.
    pub fn index(&mut self) -> Result<Vec<IndexItem>, Unsupported> {
        match self.next("index") {
            Some(Argument::List(parts)) => parts.iter().map(Argument::index).collect(),
            Some(one) => Ok(vec![one.index()?]),
            None => Err(Unsupported("no index".into())),
        }
    }
}

fn integers(name: &str, parts: &[Argument]) -> Result<Vec<i64>, Unsupported> {
    let integer = |part: &Argument| match part {
        Argument::Int(i) => Ok(*i),
        other => Err(unsupported(name, &Some(other.clone()))),
    };
    parts.iter().map(integer).collect()
}

fn unsupported(name: &str, value: &Option<Argument>) -> Unsupported {
    let kind = match value {
        None => "absent".into(),
        Some(Argument::Tensor(t)) => format!("a tensor of {}", t.dtype()),
        Some(Argument::List(_)) => "a list".into(),
        Some(other) => format!("{other:?}"),
    };
    Unsupported(format!("argument `{name}` being {kind}"))
}
