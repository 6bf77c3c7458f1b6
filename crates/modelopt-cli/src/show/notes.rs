//! Long texts below a table rather than in it: one of them would make every line as long.

use super::{cell, wrapped};

/// How long a line of a table gets before texts go below it, in characters.
const LINE: usize = 120;

/// Texts that a table refers to by number.
pub(super) struct Notes {
    texts: Vec<String>,
    /// The longest text that stands in a cell, in characters.
    room: usize,
}

impl Default for Notes {
    fn default() -> Self {
        Notes { texts: Vec::new(), room: 64 }
    }
}

impl Notes {
    /// Notes of a table whose other columns are this wide.
    pub(super) fn beside(width: usize) -> Self {
        Notes { texts: Vec::new(), room: LINE.saturating_sub(width).max(40) }
    }

    /// The text where it is short; else `word`, with the number of the note that says it.
    pub(super) fn short(&mut self, word: &str, text: &str) -> String {
        let text = cell(text);
        if text.chars().count() <= self.room {
            return text;
        }
        let known = self.texts.iter().position(|known| *known == text);
        let place = known.unwrap_or_else(|| {
            self.texts.push(text);
            self.texts.len() - 1
        });
        format!("{word} [{}]", place + 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The notes, to stand below the table; nothing where there are none.
    pub(super) fn below(&self) -> String {
        let notes = self.texts.iter().enumerate();
        notes.map(|(at, text)| wrapped(&format!("[{}] ", at + 1), text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_stand_below_once() {
        let mut notes = Notes::default();
        assert_eq!(notes.short("failed", "short"), "short");
        assert_eq!(notes.below(), "");
        let long = "a reason ".repeat(30);
        assert_eq!(notes.short("failed", &long), "failed [1]");
        assert_eq!(notes.short("failed", &long), "failed [1]");
        assert_eq!(notes.short("failed", &long.to_uppercase()), "failed [2]");
        let below = notes.below();
        assert!(below.starts_with("  [1] a reason a reason"), "{below}");
        assert!(below.lines().all(|line| line.chars().count() <= 96), "{below}");
        assert_eq!(below.matches("[1]").count(), 1);
    }
}
