//! No code names a form but the form's own file, the registry, and tests: whoever adds one touches
//! nothing else.

use std::path::Path;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{LitStr, Macro};

use crate::source::{Crate, Line};

/// Where forms are named: the registry and the files below it.
const REGISTRY: &str = "crates/modelopt-rewrite/src/forms";

/// The names in the registry that mean nothing else: those with a hyphen.
pub(crate) fn names(repository: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(repository.join(REGISTRY).with_extension("rs")).unwrap();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("(\""));
    let names = lines.filter_map(|line| Some(line.split_once("\", &")?.0.to_owned()));
    names.filter(|name| name.contains('-')).collect()
}

/// Where a crate names a form.
pub(crate) fn named(source: &Crate, names: &[String]) -> Vec<(Line, String)> {
    let mut found = Vec::new();
    for module in &source.modules {
        let file = source.files[module.file].name.clone();
        if file.starts_with(REGISTRY) {
            continue;
        }
        let mut visitor = Visitor { file, names, found: &mut found };
        module.items.iter().for_each(|item| visitor.visit_item(item));
    }
    found
}

struct Visitor<'a> {
    file: String,
    names: &'a [String],
    found: &'a mut Vec<(Line, String)>,
}

impl Visitor<'_> {
    fn add(&mut self, span: Span, what: String) {
        self.found.push((Line { file: self.file.clone(), line: span.start().line }, what));
    }

    /// `Scheme::NAME`
    fn constant(&mut self, owner: &Ident, name: &Ident) {
        let is_constant = name.to_string().chars().all(|c| !c.is_lowercase());
        if owner == "Scheme" && is_constant {
            self.add(name.span(), format!("{owner}::{name}"));
        }
    }

    fn literal(&mut self, literal: &LitStr) {
        if self.names.contains(&literal.value()) {
            self.add(literal.span(), literal.value());
        }
    }

    /// What stands in a macro is not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for part in tokens.windows(4) {
            if let [
                TokenTree::Ident(owner),
                TokenTree::Punct(_),
                TokenTree::Punct(colon),
                TokenTree::Ident(name),
            ] = part
                && colon.as_char() == ':'
            {
                self.constant(owner, name);
            }
        }
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    let span = literal.span();
                    if let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.literal(&LitStr::new(&text.value(), span));
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<&syn::PathSegment> = path.segments.iter().collect();
        for pair in segments.windows(2) {
            self.constant(&pair[0].ident, &pair[1].ident);
        }
        visit::visit_path(self, path);
    }

    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        self.literal(literal);
    }

    fn visit_macro(&mut self, found: &'ast Macro) {
        self.tokens(found.tokens.clone());
    }
}
