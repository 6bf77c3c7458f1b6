//! Which files of a crate use which, and the circles among them.
//!
//! A file uses another where it imports or names an item that is *defined* there:
//!
//! - The item counts, not the way to it. `use super::Rule` is an arrow to the parent if the parent
//!   defines `Rule`, and to the sibling that defines it if the parent only hands it on.
//! - Handing on (`pub use`, at any visibility) is no use by itself, and neither are `mod x;` and the
//!   import of a whole module. What is then named through them is.
//! - A parent that names an item of its child uses the child.
//! - Paths in the arguments of macros count; calls of methods do not, because they name no file.
//! - What is compiled for tests only does not count.
//!
//! A *circle* is a set of files each of which leads to each other along such arrows.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ImplItem, Item, ItemUse, Macro, Path, UseTree, Visibility};

use crate::source::{Crate, Line, is_for_tests, is_test};

/// Imports may hand on imports; longer chains than this would not compile.
const MAX_HOPS: usize = 32;

/// Which file uses which, with the first place where it does.
pub(crate) type Arrows = BTreeMap<(usize, usize), Line>;

/// All arrows between the files of a crate.
pub(crate) fn arrows(source: &Crate) -> Arrows {
    let scopes: Vec<Scope> = source.modules.iter().map(|module| Scope::of(&module.items)).collect();
    let names = Names { source, scopes };
    let mut arrows = Arrows::new();
    for (index, module) in source.modules.iter().enumerate() {
        let mut uses = Uses::default();
        module.items.iter().for_each(|item| uses.visit_item(item));
        for (path, line) in uses.found {
            let Some(file) = names.definition(index, &path, MAX_HOPS) else { continue };
            if file != module.file {
                let at = Line { file: source.files[module.file].name.clone(), line };
                let first = arrows.entry((module.file, file)).or_insert_with(|| at.clone());
                *first = at.min(first.clone());
            }
        }
    }
    arrows
}

/// The circles of at least two files, largest first; the files of each in order.
pub(crate) fn circles(files: usize, arrows: &Arrows) -> Vec<Vec<usize>> {
    let reach: Vec<BTreeSet<usize>> = (0..files).map(|file| reached(file, arrows)).collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for file in 0..files {
        let circle: Vec<usize> =
            reach[file].iter().copied().filter(|other| reach[*other].contains(&file)).collect();
        if circle.len() > 1 && !seen.contains(&file) {
            seen.extend(circle.iter().copied());
            circles.push(circle);
        }
    }
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

/// The files that a file leads to.
fn reached(file: usize, arrows: &Arrows) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(from) = open.pop() {
        let next = arrows.range((from, 0)..=(from, usize::MAX)).map(|((_, to), _)| *to);
        open.extend(next.filter(|to| reached.insert(*to)));
    }
    reached
}

/// What the names of a module stand for.
#[derive(Default)]
struct Scope {
    defined: BTreeSet<String>,
    imports: BTreeMap<String, Vec<String>>,
    /// Modules of which everything is imported.
    globs: Vec<Vec<String>>,
}

impl Scope {
    fn of(items: &[Item]) -> Self {
        let mut scope = Scope::default();
        for item in items {
            scope.defined.extend(defined(item));
        }
        let mut imports = Imports::default();
        for item in items {
            imports.visit_item(item);
        }
        for import in imports.found {
            for leaf in leaves(&import.tree) {
                match leaf.name {
                    Some(name) => drop(scope.imports.insert(name, leaf.path)),
                    None => scope.globs.push(leaf.path),
                }
            }
        }
        scope
    }
}

fn defined(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Macro(item) => item.ident.as_ref()?.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        Item::Union(item) => item.ident.to_string(),
        _ => return None,
    })
}

/// All imports, those inside functions too.
#[derive(Default)]
struct Imports {
    found: Vec<ItemUse>,
}

impl Visit<'_> for Imports {
    fn visit_item_use(&mut self, item: &ItemUse) {
        self.found.push(item.clone());
    }
}

/// One name that an import brings; a glob brings none.
struct Leaf {
    name: Option<String>,
    path: Vec<String>,
}

fn leaves(tree: &UseTree) -> Vec<Leaf> {
    fn walk(tree: &UseTree, path: &mut Vec<String>, found: &mut Vec<Leaf>) {
        match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                walk(&inner.tree, path, found);
                path.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, path, found)),
            UseTree::Glob(_) => found.push(Leaf { name: None, path: path.clone() }),
            UseTree::Name(name) => found.push(leaf(path, &name.ident.to_string(), None)),
            UseTree::Rename(name) => {
                let renamed = Some(name.rename.to_string());
                found.push(leaf(path, &name.ident.to_string(), renamed));
            }
        }
    }
    /// `use x::{self}` brings `x`.
    fn leaf(path: &[String], last: &str, renamed: Option<String>) -> Leaf {
        let mut path = path.to_vec();
        if last != "self" || path.is_empty() {
            path.push(last.to_owned());
        }
        Leaf { name: renamed.or_else(|| path.last().cloned()), path }
    }
    let mut found = Vec::new();
    walk(tree, &mut Vec::new(), &mut found);
    found
}

/// What the names of all modules stand for.
struct Names<'a> {
    source: &'a Crate,
    scopes: Vec<Scope>,
}

impl Names<'_> {
    /// The file that defines what a path names in a module; none if it is of another crate, or a
    /// whole module.
    fn definition(&self, module: usize, path: &[String], hops: usize) -> Option<usize> {
        let hops = hops.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        let next = match first.as_str() {
            "crate" => Some(0),
            "self" => Some(module),
            "super" => self.source.modules[module].parent,
            name => self.source.modules[module].children.get(name).copied(),
        };
        if let Some(next) = next {
            return self.definition(next, rest, hops);
        }
        let scope = &self.scopes[module];
        if scope.defined.contains(first) {
            return Some(self.source.modules[module].file);
        }
        if let Some(import) = scope.imports.get(first) {
            // `use serde::Serialize` and `use regex;` lead outside and end here.
            if import.first() == Some(first) {
                return None;
            }
            return self.definition(module, &[import, rest].concat(), hops);
        }
        let through = |glob: &Vec<String>| {
            let path = [glob.as_slice(), std::slice::from_ref(first), rest].concat();
            (glob.first() != Some(first)).then(|| self.definition(module, &path, hops))?
        };
        scope.globs.iter().find_map(through)
    }
}

/// Paths that code names, and items that it imports for itself, with their lines.
#[derive(Default)]
struct Uses {
    found: Vec<(Vec<String>, usize)>,
}

impl Uses {
    /// Paths among tokens that are not parsed, such as the arguments of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        // Whether the next word goes on with the path, and whether it is a field.
        let (mut joined, mut field) = (false, false);
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    if !joined {
                        self.path(&mut path, line);
                        line = word.span().start().line;
                    }
                    if !field {
                        path.push(word.to_string());
                    }
                    (joined, field, colons) = (false, false, 0);
                }
                TokenTree::Punct(sign) if sign.as_char() == ':' => {
                    colons += 1;
                    joined = colons == 2;
                }
                other => {
                    self.path(&mut path, line);
                    joined = false;
                    colons = 0;
                    field = matches!(&other, TokenTree::Punct(sign) if sign.as_char() == '.');
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.path(&mut path, line);
    }

    fn path(&mut self, path: &mut Vec<String>, line: usize) {
        if !path.is_empty() {
            self.found.push((std::mem::take(path), line));
        }
    }
}

impl Visit<'_> for Uses {
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

    fn visit_item_use(&mut self, item: &ItemUse) {
        if matches!(item.vis, Visibility::Inherited) {
            let line = item.use_token.span.start().line;
            let named = leaves(&item.tree).into_iter().filter(|leaf| leaf.name.is_some());
            self.found.extend(named.map(|leaf| (leaf.path, line)));
        }
    }

    fn visit_path(&mut self, path: &Path) {
        if let Some(first) = path.segments.first() {
            let line = first.ident.span().start().line;
            let words = path.segments.iter().map(|segment| segment.ident.to_string());
            self.found.push((words.collect(), line));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_visibility(&mut self, _: &Visibility) {
        // `pub(super)` and `pub(in crate::x)` name who may use, not what is used.
    }
}
