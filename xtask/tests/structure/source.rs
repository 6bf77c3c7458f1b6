//! The source files of a crate as modules, without what is compiled for tests only.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::{Attribute, Item, Meta};

/// Something that is found at a line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    /// Relative to the root of the repository.
    pub(crate) file: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A module: a file, or a part of one in braces.
pub(crate) struct Module {
    /// Position of the file in [`Crate::files`].
    pub(crate) file: usize,
    pub(crate) parent: Option<usize>,
    pub(crate) children: BTreeMap<String, usize>,
    /// What stands in it, without tests and modules.
    pub(crate) items: Vec<Item>,
}

/// A source file.
pub(crate) struct File {
    /// Relative to the root of the repository.
    pub(crate) name: String,
    /// How many lines are not tests.
    pub(crate) lines: usize,
}

/// A crate below one root file.
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) files: Vec<File>,
    /// The first is the root.
    pub(crate) modules: Vec<Module>,
}

impl Crate {
    /// Reads a crate from its root file; names of files are relative to `repository`.
    pub(crate) fn read(name: &str, repository: &Path, root: &Path) -> Self {
        let mut found = Crate { name: name.to_owned(), files: Vec::new(), modules: Vec::new() };
        let folder = root.parent().unwrap();
        found.read_file(repository, root, folder, None);
        found
    }

    /// Reads the module that a file is; `folder` is where its children lie.
    fn read_file(
        &mut self,
        repository: &Path,
        path: &Path,
        folder: &Path,
        parent: Option<usize>,
    ) -> usize {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parsed =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tests: usize = parsed.items.iter().filter(|item| is_test(item)).map(height).sum();
        let name = path.strip_prefix(repository).unwrap().display().to_string();
        self.files.push(File { name, lines: text.lines().count() - tests });
        let position = Position { repository, folder, file: self.files.len() - 1 };
        self.read_items(&position, parsed.items, parent)
    }

    fn read_items(
        &mut self,
        position: &Position<'_>,
        items: Vec<Item>,
        parent: Option<usize>,
    ) -> usize {
        let module = self.modules.len();
        self.modules.push(Module {
            file: position.file,
            parent,
            children: BTreeMap::new(),
            items: Vec::new(),
        });
        for item in items {
            if is_test(&item) {
                continue;
            }
            let Item::Mod(child) = item else {
                self.modules[module].items.push(item);
                continue;
            };
            let name = child.ident.to_string();
            let folder = position.folder.join(&name);
            let index = if let Some((_, items)) = child.content {
                let inner = Position { folder: &folder, ..*position };
                self.read_items(&inner, items, Some(module))
            } else {
                let path = file_of(position.folder, &name);
                self.read_file(position.repository, &path, &folder, Some(module))
            };
            self.modules[module].children.insert(name, index);
        }
        module
    }
}

/// Where modules are being read.
#[derive(Clone, Copy)]
struct Position<'a> {
    repository: &'a Path,
    folder: &'a Path,
    file: usize,
}

/// The file of a module that is declared without a body.
fn file_of(folder: &Path, name: &str) -> PathBuf {
    let beside = folder.join(name).with_extension("rs");
    if beside.exists() { beside } else { folder.join(name).join("mod.rs") }
}

/// How many lines an item has, its attributes included.
fn height(item: &Item) -> usize {
    let span = item.span();
    span.end().line - span.start().line + 1
}

/// Whether an item is compiled for tests only.
pub(crate) fn is_test(item: &Item) -> bool {
    is_for_tests(attributes(item))
}

/// Whether attributes say that something is compiled for tests only.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if attribute.path().is_ident("cfg") => {
            let condition = list.tokens.to_string();
            let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| word == "test") && !condition.contains("not")
        }
        Meta::Path(path) => path.is_ident("test"),
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
