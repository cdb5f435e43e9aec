//! What text forms share: names, and a cursor whose errors say where they are and what would have been right.

use crate::{DType, Error, ErrorKind, Result, Shape, Source, Sources, TensorType};
use std::fmt;
use std::str::FromStr;

/// A name as text: bare where it is a word, else in quotes with escapes.
pub(crate) struct Name<'a>(pub &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let starts_well = self.0.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if starts_well && self.0.chars().all(is_word) { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// A position in a text, moving forward. White space, line ends and `//` comments separate and mean nothing.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.text.len() - rest.len();
            if !rest.starts_with("//") {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    /// Where the next token starts.
    pub(crate) fn position(&mut self) -> usize {
        self.skip();
        self.at
    }

    /// The next character that means something.
    pub(crate) fn peek(&mut self) -> Option<char> {
        self.skip();
        self.rest().chars().next()
    }

    /// An error at a position: `line 3, column 14: message`.
    #[cold]
    pub(crate) fn error_at(&self, position: usize, message: impl fmt::Display) -> Error {
        let before = &self.text[..position];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Error::new(ErrorKind::Parse, format!("line {line}, column {column}: {message}"))
    }

    /// The error that something else stands at the next token.
    #[cold]
    pub(crate) fn expected(&mut self, what: impl fmt::Display) -> Error {
        let position = self.position();
        let rest = self.rest();
        let length = match rest.chars().next() {
            None => return self.error_at(position, format!("expected {what}, found the end")),
            Some(c) if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            Some(c) => c.len_utf8(),
        };
        self.error_at(position, format!("expected {what}, found `{}`", &rest[..length]))
    }

    /// Whether the next token is this one; moves past it then.
    pub(crate) fn eat(&mut self, token: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    pub(crate) fn require(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(format_args!("`{token}`"))) }
    }

    /// The next word: a letter or `_`, then letters, digits, `_` and `.`.
    pub(crate) fn word(&mut self) -> Option<&'a str> {
        self.skip();
        let rest = self.rest();
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return None;
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        self.at += end;
        Some(&rest[..end])
    }

    /// Moves past the next character.
    pub(crate) fn eat_char(&mut self) {
        self.skip();
        self.at += self.rest().chars().next().map_or(0, char::len_utf8);
    }

    /// Whether the next word is this one; moves past it then.
    pub(crate) fn eat_word(&mut self, word: &str) -> bool {
        let mut ahead = *self;
        let found = ahead.word() == Some(word);
        if found {
            *self = ahead;
        }
        found
    }

    /// The next run of characters of which `take` holds.
    pub(crate) fn run(&mut self, take: impl Fn(char) -> bool) -> &'a str {
        self.skip();
        let rest = self.rest();
        let end = rest.find(|c| !take(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// The next number, of decimal digits.
    pub(crate) fn number<T: FromStr>(&mut self) -> Result<T> {
        let start = self.position();
        let digits = self.run(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(self.expected("a number"));
        }
        digits.parse().map_err(|_| self.error_at(start, format!("the number {digits} is too large")))
    }

    /// A name: a word, or text in quotes.
    pub(crate) fn name(&mut self) -> Result<String> {
        if let Some(word) = self.word() {
            return Ok(word.to_owned());
        }
        let start = self.position();
        if !self.eat("\"") {
            return Err(self.expected("a name"));
        }
        let mut name = String::new();
        let mut chars = self.rest().char_indices();
        loop {
            match chars.next() {
                Some((i, '"')) => {
                    self.at += i + 1;
                    return Ok(name);
                }
                Some((i, '\\')) => match escape(&mut chars) {
                    Some(c) => name.push(c),
                    None => return Err(self.error_at(self.at + i, "expected an escape such as `\\n` or `\\u{e9}`")),
                },
                Some((_, c)) => name.push(c),
                None => return Err(self.error_at(start, "the quoted name has no end")),
            }
        }
    }

    /// `f32[2,3]`.
    pub(crate) fn tensor_type(&mut self) -> Result<TensorType> {
        let dtype = self.dtype()?;
        let start = self.position();
        let shape = Shape::new(self.list(Self::number)?);
        shape.check(dtype).map_err(|e| self.error_at(start, e.message()))?;
        Ok(TensorType { shape, dtype })
    }

    /// `f32`.
    pub(crate) fn dtype(&mut self) -> Result<DType> {
        let mut ahead = *self;
        let Some(dtype) = ahead.word().and_then(DType::parse) else {
            let names: Vec<&str> = DType::ALL.iter().map(|d| d.name()).collect();
            return Err(self.expected(format_args!("a dtype ({})", names.join(", "))));
        };
        *self = ahead;
        Ok(dtype)
    }

    /// `[item, item]`.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.require("[")?;
        let mut items = Vec::new();
        while !self.eat("]") {
            items.push(item(self)?);
            if !self.eat(",") && self.peek() != Some(']') {
                return Err(self.expected("`,` or `]`"));
            }
        }
        Ok(items)
    }

    /// The source lines in the comment that ends this line: `// a.rs:1:2, b.rs:3:4`. Another comment is no source.
    pub(crate) fn sources(&mut self) -> Sources {
        let line = self.rest().lines().next().unwrap_or("");
        let Some(comment) = line.trim_start().strip_prefix("//") else { return Sources::none() };
        comment.split(", ").map(|s| Source::parse(s.trim())).collect::<Option<Sources>>().unwrap_or_default()
    }
}

/// The character of an escape, after its backslash.
fn escape(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    match chars.next()?.1 {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        '0' => Some('\0'),
        c @ ('\\' | '"' | '\'') => Some(c),
        'u' => {
            let hex = chars.as_str().strip_prefix('{')?.split_once('}')?.0;
            let c = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32)?;
            chars.nth(hex.len() + 1);
            Some(c)
        }
        _ => None,
    }
}
