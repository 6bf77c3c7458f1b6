//! A reader of JSON that goes forward over bytes and takes no memory of its own.

use std::borrow::Cow;

use crate::ServeError;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct JsonError {
    /// What is wrong.
    pub(crate) what: Cow<'static, str>,
    /// Where, from the start of the text.
    pub(crate) at: usize,
}

impl From<JsonError> for ServeError {
    fn from(error: JsonError) -> Self {
        ServeError::Invalid(format!("the request is not as it should be: {error}"))
    }
}

/// What begins at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
    /// `NaN` or `Infinity`, which are words of JavaScript and Python but not of JSON.
    NotFinite,
    /// Nothing that a value begins with.
    Other,
}

impl Kind {
    /// How people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool => "true or false",
            Kind::Number => "a number",
            Kind::String => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
            Kind::NotFinite => "NaN or infinity",
            Kind::Other => "no value",
        }
    }
}

/// A number as it stands in the text, which has been held to JSON's grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number<'a> {
    /// The digits.
    pub(crate) text: &'a str,
    /// Whether it has neither a fraction nor an exponent.
    pub(crate) is_integer: bool,
    /// Where it begins.
    pub(crate) at: usize,
}

/// Goes forward over a text.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    max_depth: usize,
}

impl<'a> Scanner<'a> {
    /// From the start of a text; what is nested deeper than `max_depth` is refused.
    pub(crate) fn new(text: &'a [u8], max_depth: usize) -> Self {
        Scanner { text, at: 0, depth: 0, max_depth }
    }

    /// From a place in a text.
    pub(crate) fn starting(text: &'a [u8], at: usize, max_depth: usize) -> Self {
        Scanner { text, at, depth: 0, max_depth }
    }

    /// Where it stands.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub(crate) fn remaining(&self) -> usize {
        self.text.len().saturating_sub(self.at)
    }

    /// An error at this place.
    pub(crate) fn error(&self, what: impl Into<Cow<'static, str>>) -> JsonError {
        JsonError { what: what.into(), at: self.at }
    }

    /// The error that something else stands here than what is wanted.
    pub(crate) fn unexpected(&mut self, wanted: &str) -> JsonError {
        let kind = self.kind();
        if kind == Kind::Other && self.peek().is_none() {
            return self.error(format!("the text ends where {wanted} should be"));
        }
        if kind == Kind::NotFinite {
            return self.error("NaN or infinity, which only binary data can have,");
        }
        self.error(format!("{} where {wanted} should be", kind.name()))
    }

    /// What the next value is, by how it begins.
    pub(crate) fn kind(&mut self) -> Kind {
        self.space();
        match self.peek() {
            Some(b'-') if self.text.get(self.at + 1) == Some(&b'I') => Kind::NotFinite,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            Some(b'"') => Kind::String,
            Some(b'[') => Kind::Array,
            Some(b'{') => Kind::Object,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            Some(b'N' | b'I') => Kind::NotFinite,
            _ => Kind::Other,
        }
    }

    /// Goes into an array.
    pub(crate) fn open_array(&mut self) -> Result<(), JsonError> {
        self.open(b'[', "an array")
    }

    /// Goes into an object.
    pub(crate) fn open_object(&mut self) -> Result<(), JsonError> {
        self.open(b'{', "an object")
    }

    /// Whether the array that was opened last has one more item; `first` is true before the first.
    pub(crate) fn next_item(&mut self, first: &mut bool) -> Result<bool, JsonError> {
        self.more(b']', first, "a comma or the end of the array")
    }

    /// The next key of the object that was opened last.
    pub(crate) fn next_key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, JsonError> {
        if !self.more(b'}', first, "a comma or the end of the object")? {
            return Ok(None);
        }
        let key = self.string("a key")?;
        self.space();
        self.byte(b':', "a colon")?;
        Ok(Some(key))
    }

    /// The next key whose value is not null: some clients write what they do not say as null.
    pub(crate) fn next_member(
        &mut self,
        first: &mut bool,
    ) -> Result<Option<Cow<'a, str>>, JsonError> {
        while let Some(key) = self.next_key(first)? {
            if self.kind() != Kind::Null {
                return Ok(Some(key));
            }
            self.skip()?;
        }
        Ok(None)
    }

    /// A string.
    pub(crate) fn string(&mut self, wanted: &str) -> Result<Cow<'a, str>, JsonError> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.unexpected(wanted));
        }
        let start = self.at;
        self.at += 1;
        let mut is_plain = true;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    is_plain = false;
                    self.at += 2;
                }
                Some(0..0x20) => return Err(self.error("a control character in a string")),
                Some(_) => self.at += 1,
                None => return Err(self.error("the text ends in a string")),
            }
        }
        self.at += 1;
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        if !is_plain {
            let text = serde_json::from_slice::<String>(quoted);
            return text
                .map(Cow::Owned)
                .map_err(|_| JsonError { what: "a string with a wrong escape".into(), at: start });
        }
        let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        let text = std::str::from_utf8(inner);
        text.map(Cow::Borrowed)
            .map_err(|_| JsonError { what: "a string that is not UTF-8".into(), at: start })
    }

    /// A number.
    pub(crate) fn number(&mut self, wanted: &str) -> Result<Number<'a>, JsonError> {
        if self.kind() != Kind::Number {
            return Err(self.unexpected(wanted));
        }
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let leads_with_zero = self.peek() == Some(b'0');
        let digits = self.digits()?;
        if leads_with_zero && digits > 1 {
            return Err(JsonError { what: "a number that begins with 0".into(), at: start });
        }
        let mut is_integer = true;
        if self.peek() == Some(b'.') {
            is_integer = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            is_integer = false;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let text = std::str::from_utf8(self.text.get(start..self.at).unwrap_or_default());
        Ok(Number { text: text.unwrap_or_default(), is_integer, at: start })
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, wanted: &str) -> Result<bool, JsonError> {
        self.space();
        let rest = self.text.get(self.at..).unwrap_or_default();
        if rest.starts_with(b"true") {
            self.at += 4;
            return Ok(true);
        }
        if rest.starts_with(b"false") {
            self.at += 5;
            return Ok(false);
        }
        Err(self.unexpected(wanted))
    }

    /// Goes over a value, which must be one, and hands back its text.
    pub(crate) fn skip(&mut self) -> Result<&'a [u8], JsonError> {
        let kind = self.kind();
        let start = self.at;
        match kind {
            Kind::Number => drop(self.number("a value")?),
            Kind::String => drop(self.string("a value")?),
            Kind::Bool => drop(self.boolean("a value")?),
            Kind::Null => {
                if !self.text.get(self.at..).unwrap_or_default().starts_with(b"null") {
                    return Err(self.error("no value where a value should be"));
                }
                self.at += 4;
            }
            // Not deeper than what is allowed, so the stack is not exhausted.
            Kind::Array => {
                self.open_array()?;
                let mut first = true;
                while self.next_item(&mut first)? {
                    self.skip()?;
                }
            }
            Kind::Object => {
                self.open_object()?;
                let mut first = true;
                while self.next_key(&mut first)?.is_some() {
                    self.skip()?;
                }
            }
            Kind::NotFinite | Kind::Other => return Err(self.unexpected("a value")),
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    /// Nothing but space may follow.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.peek().is_none() { Ok(()) } else { Err(self.error("something after the value")) }
    }

    fn open(&mut self, bracket: u8, wanted: &str) -> Result<(), JsonError> {
        self.space();
        if self.peek() != Some(bracket) {
            return Err(self.unexpected(wanted));
        }
        if self.depth >= self.max_depth {
            return Err(self.error(format!("more than {} levels of nesting", self.max_depth)));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn more(&mut self, close: u8, first: &mut bool, wanted: &str) -> Result<bool, JsonError> {
        self.space();
        let is_first = std::mem::replace(first, false);
        match self.peek() {
            Some(b',') if !is_first => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.depth = self.depth.saturating_sub(1);
                self.at += 1;
                Ok(false)
            }
            Some(_) if is_first => Ok(true),
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn byte(&mut self, byte: u8, wanted: &str) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.unexpected(wanted));
        }
        self.at += 1;
        Ok(())
    }

    /// How many digits stand here; at least one must.
    fn digits(&mut self) -> Result<usize, JsonError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.error("a number without a digit"));
        }
        Ok(self.at - start)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &[u8]) -> bool {
        let mut scanner = Scanner::new(text, 100);
        scanner.skip().is_ok() && scanner.end().is_ok()
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let wrong = [
            "",
            " ",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "01",
            "-",
            "-01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "0x1",
            "tru",
            "nul",
            "nil",
            "NaN",
            "Infinity",
            "-Infinity",
            "\"a",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\n\"",
            "\"\\",
            "1 2",
            "[1}",
            "{\"a\":1]",
            "'a'",
            "[1]]",
            "//",
        ];
        for text in wrong {
            assert!(!accepts(text.as_bytes()), "{text} is taken");
        }
        assert!(!accepts(b"\"\xff\""));
    }

    #[test]
    fn what_is_json_is_taken() {
        let right = [
            "0",
            "-0",
            "1.5e+10",
            "[]",
            "{}",
            " [ 1 , 2 ] ",
            "\"\"",
            "\"\\u00e9\\n\"",
            "null",
            "true",
            "false",
            "{\"a\":{\"b\":[1,\"x\",null]},\"a\":2}",
            "\"\\ud83d\\ude00\"",
        ];
        for text in right {
            assert!(accepts(text.as_bytes()), "{text} is refused");
        }
    }

    #[test]
    fn strings_are_borrowed_where_nothing_is_escaped() {
        let string = |text: &'static str| Scanner::new(text.as_bytes(), 1).string("x").unwrap();
        assert!(matches!(string("\"plain é\""), Cow::Borrowed("plain é")));
        assert!(matches!(string("\"a\\u00e9\\\"\""), Cow::Owned(text) if text == "aé\""));
    }

    #[test]
    fn errors_say_what_and_where() {
        let error = |text: &str| {
            let mut scanner = Scanner::new(text.as_bytes(), 2);
            scanner.skip().and_then(|_| scanner.end()).unwrap_err().to_string()
        };
        assert_eq!(
            error("[1, NaN]"),
            "NaN or infinity, which only binary data can have, at byte 4"
        );
        assert_eq!(error("[[[1]]]"), "more than 2 levels of nesting at byte 2");
        assert_eq!(
            error("[1"),
            "the text ends where a comma or the end of the array should be at byte 2"
        );
        assert_eq!(error("[] x"), "something after the value at byte 3");
    }

    #[test]
    fn depth_is_that_of_what_is_open_and_not_of_what_was() {
        let text = format!("[{}[]]", "[[]],".repeat(50));
        assert!(Scanner::new(text.as_bytes(), 3).skip().is_ok());
        let deep = "[".repeat(100_000);
        assert!(Scanner::new(deep.as_bytes(), 64).skip().is_err());
    }

    fn texts() -> impl Strategy<Value = String> {
        let pieces = vec![
            "[", "]", "{", "}", ",", ":", "\"a\"", "\"\\n\"", "1", "-0", "1e2", "0.5", "00",
            "true", "null", " ", "\"a\":", "[1,", "{\"a\":1",
        ];
        prop_oneof![
            "[\\[\\]{}:, \"a\\\\un0-2.eE+truefalsnil]{0,24}",
            prop::collection::vec(prop::sample::select(pieces), 0..10)
                .prop_map(|pieces| pieces.concat()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn as_serde_json_says(text in texts()) {
            let other = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(accepts(text.as_bytes()), other);
        }
    }

    #[test]
    fn members_that_are_null_are_not_there() {
        let mut scanner = Scanner::new(br#"{"a":null,"b":1,"c":null}"#, 1);
        scanner.open_object().unwrap();
        let mut first = true;
        assert_eq!(scanner.next_member(&mut first).unwrap().as_deref(), Some("b"));
        scanner.skip().unwrap();
        assert_eq!(scanner.next_member(&mut first).unwrap(), None);
        scanner.end().unwrap();
    }
}
