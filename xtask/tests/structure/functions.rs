//! How long functions are and how many parameters they have.

use proc_macro2::Span;
use syn::visit::{self, Visit};
use syn::{FnArg, ImplItem, ImplItemFn, Item, ItemFn, ItemImpl, ItemTrait, Signature, TraitItemFn};
use syn::{Type, token::Brace};

use crate::source::{Crate, Line, is_for_tests, is_test};

/// A function of a crate.
#[derive(Debug)]
pub(crate) struct Function {
    /// With its type before it, if it has one.
    pub(crate) name: String,
    pub(crate) at: Line,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
    /// Parameters without `self`.
    pub(crate) parameters: usize,
}

/// All functions with a body, those inside functions too, without tests.
pub(crate) fn functions(source: &Crate) -> Vec<Function> {
    let mut found = Vec::new();
    for module in &source.modules {
        let file = source.files[module.file].name.clone();
        let mut visitor = Visitor { file, owner: None, found: &mut found };
        module.items.iter().for_each(|item| visitor.visit_item(item));
    }
    found
}

struct Visitor<'a> {
    file: String,
    /// The type or trait that functions belong to.
    owner: Option<String>,
    found: &'a mut Vec<Function>,
}

impl Visitor<'_> {
    fn function(&mut self, signature: &Signature, body: Brace) {
        let name = signature.ident.to_string();
        let start = start(signature.fn_token.span);
        let parameters = signature.inputs.iter().filter(|input| matches!(input, FnArg::Typed(_)));
        self.found.push(Function {
            name: self.owner.as_ref().map_or(name.clone(), |owner| format!("{owner}::{name}")),
            at: Line { file: self.file.clone(), line: start },
            lines: body.span.close().end().line - start + 1,
            parameters: parameters.count(),
        });
    }

    fn inside(&mut self, owner: String, visit: impl FnOnce(&mut Self)) {
        let before = self.owner.replace(owner);
        visit(self);
        self.owner = before;
    }
}

fn start(span: Span) -> usize {
    span.start().line
}

impl Visit<'_> for Visitor<'_> {
    fn visit_item(&mut self, item: &Item) {
        if !is_test(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &ImplItem) {
        if !matches!(item, ImplItem::Fn(function) if is_for_tests(&function.attrs)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &ItemImpl) {
        let owner = match &*item.self_ty {
            Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        let owner = owner.unwrap_or_else(|| "_".to_owned());
        self.inside(owner, |visitor| visit::visit_item_impl(visitor, item));
    }

    fn visit_item_trait(&mut self, item: &ItemTrait) {
        let owner = item.ident.to_string();
        self.inside(owner, |visitor| visit::visit_item_trait(visitor, item));
    }

    fn visit_item_fn(&mut self, item: &ItemFn) {
        self.function(&item.sig, item.block.brace_token);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &ImplItemFn) {
        self.function(&item.sig, item.block.brace_token);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.sig, body.brace_token);
        }
        visit::visit_trait_item_fn(self, item);
    }
}
