//! Only the command line knows the names of its flags: no string of another crate has one. Comments
//! may speak of them.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, LitStr, Macro, Meta};

use crate::source::{Crate, Line};

/// The crate that has flags.
pub(crate) const COMMAND_LINE: &str = "modelopt-cli";

/// Strings of a crate that have flags in them.
pub(crate) fn named(source: &Crate) -> Vec<(Line, String)> {
    let mut found = Vec::new();
    for module in &source.modules {
        let file = source.files[module.file].name.clone();
        let mut visitor = Visitor { file, found: &mut found };
        module.items.iter().for_each(|item| visitor.visit_item(item));
    }
    found
}

/// Whether a text has something like `--flag`.
fn has_flag(text: &str) -> bool {
    let starts = text.match_indices("--").map(|(at, _)| at);
    let is_flag = |at: usize| {
        let ends_word = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
        ends_word && text[at + 2..].starts_with(|c: char| c.is_ascii_lowercase())
    };
    starts.into_iter().any(is_flag)
}

struct Visitor<'a> {
    file: String,
    found: &'a mut Vec<(Line, String)>,
}

impl Visitor<'_> {
    fn text(&mut self, text: String, span: Span) {
        if has_flag(&text) {
            self.found.push((Line { file: self.file.clone(), line: span.start().line }, text));
        }
    }

    /// What stands in a macro or an attribute is not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.text(text.value(), literal.span());
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.tokens(list.tokens.clone()),
            _ if attribute.path().is_ident("doc") => {}
            _ => visit::visit_attribute(self, attribute),
        }
    }

    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        self.text(literal.value(), literal.span());
    }

    fn visit_macro(&mut self, found: &'ast Macro) {
        self.tokens(found.tokens.clone());
    }
}
