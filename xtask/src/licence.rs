//! Licence expressions (SPDX), as far as crates use them: names, `AND`, `OR`, `WITH` and brackets.

use anyhow::{Result, bail, ensure};

/// Whether an expression can be met with licences of which `allowed` is true. A licence with an
/// exception is one name, `Apache-2.0 WITH LLVM-exception`.
///
/// # Errors
/// If the expression cannot be read.
pub(crate) fn is_met(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    // Before 2018 alternatives were written with a slash.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    let met = parser.alternatives()?;
    ensure!(parser.words.is_empty(), "{expression:?} goes on where it should end");
    Ok(met)
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    /// Takes the next word if it is this one.
    fn takes(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn alternatives(&mut self) -> Result<bool> {
        let mut met = self.demands()?;
        while self.takes("OR") {
            met |= self.demands()?;
        }
        Ok(met)
    }

    /// `AND` binds more closely than `OR`.
    fn demands(&mut self) -> Result<bool> {
        let mut met = self.licence()?;
        while self.takes("AND") {
            met &= self.licence()?;
        }
        Ok(met)
    }

    fn licence(&mut self) -> Result<bool> {
        if self.takes("(") {
            let met = self.alternatives()?;
            ensure!(self.takes(")"), "a bracket is not closed");
            return Ok(met);
        }
        let name = self.name()?;
        if self.takes("WITH") {
            let exception = self.name()?;
            return Ok((self.allowed)(&format!("{name} WITH {exception}")));
        }
        Ok((self.allowed)(&name))
    }

    fn name(&mut self) -> Result<String> {
        let Some((&name, rest)) = self.words.split_first() else { bail!("it ends too early") };
        ensure!(!["AND", "OR", "WITH", "(", ")"].contains(&name), "{name} is no licence");
        self.words = rest;
        Ok(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::is_met;

    fn met(expression: &str, allowed: &[&str]) -> bool {
        is_met(expression, &|name| allowed.contains(&name)).unwrap()
    }

    #[test]
    fn one_alternative_is_enough_and_every_demand_counts() {
        assert!(met("MIT OR GPL-3.0", &["MIT"]));
        assert!(met("GPL-3.0/MIT", &["MIT"]));
        assert!(!met("MIT AND GPL-3.0", &["MIT"]));
        assert!(met("MIT OR GPL-3.0 AND MPL-2.0", &["MIT"]));
        assert!(!met("(MIT OR Apache-2.0) AND Unicode-3.0", &["MIT"]));
        assert!(met("(MIT OR Apache-2.0) AND Unicode-3.0", &["MIT", "Unicode-3.0"]));
    }

    #[test]
    fn an_exception_belongs_to_the_name() {
        let expression = "Apache-2.0 WITH LLVM-exception";
        assert!(!met(expression, &["Apache-2.0"]));
        assert!(met(expression, &[expression]));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for expression in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "AND"] {
            assert!(is_met(expression, &|_| true).is_err(), "{expression:?}");
        }
    }
}
