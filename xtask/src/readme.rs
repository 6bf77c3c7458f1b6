//! README's tables, between the comments that mark their places: no figure is written by hand.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::testdata;

/// Where README is.
pub(crate) fn path() -> PathBuf {
    testdata::workspace_root().join("README.md")
}

/// The text with everything between a table's two comments replaced.
pub(crate) fn replaced(text: &str, name: &str, table: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- results: {name} -->"), format!("<!-- end: {name} -->"));
    let missing = || format!("README has no {begin} followed by {end}");
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok(format!("{before}{begin}\n\n{table}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_the_place_of_the_old_one_and_the_text_stays() {
        let text = "before\n<!-- results: a -->\n\nold\n\n<!-- end: a -->\nafter";
        let expected = "before\n<!-- results: a -->\n\nnew\n\n<!-- end: a -->\nafter";
        assert_eq!(replaced(text, "a", "new\n").unwrap(), expected);
        assert_eq!(replaced(expected, "a", "new\n").unwrap(), expected);
        assert!(replaced(text, "b", "new\n").unwrap_err().to_string().contains("results: b"));
        let unended = "<!-- results: a -->";
        assert!(replaced(unended, "a", "new\n").is_err());
    }
}
