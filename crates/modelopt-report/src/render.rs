//! A document in each of the forms that it is written in.

use crate::{Document, html, markdown};

impl Document {
    /// The document as indented JSON with a newline at the end.
    pub fn to_json(&self) -> String {
        // Maps with other keys than strings are all that serde_json refuses, and there are none.
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        json + "\n"
    }

    /// The document for people, in GitHub's Markdown; below 1 MiB, the most that GitHub shows.
    pub fn to_markdown(&self) -> String {
        markdown::render(self)
    }

    /// The document for people, as one HTML page that needs nothing from elsewhere.
    pub fn to_html(&self) -> String {
        html::render(self)
    }
}
