//! The structure that the code keeps, read from its syntax:
//!
//! - no circle of imports with more than [`MAX_CIRCLE`] files (`imports.rs` says what an import is),
//! - no crate that uses one below it in the table of `docs/architecture.md`,
//! - no function of more than [`MAX_LINES`] lines or [`MAX_PARAMETERS`] parameters,
//! - no file of more than [`MAX_FILE_LINES`] lines,
//! - no form named but in its own file, the registry and tests (`forms.rs`),
//! - no flag of the command line named outside its crate (`flags.rs`),
//! - tests on no less than [`LEAST_TESTS`] of the lines of the library that people call.
//!
//! Tests inside the crates do not count, `self` is no parameter, and a function's lines go from
//! `fn` to its closing brace. [`ALLOWED`] has what is still above a limit.

mod flags;
mod forms;
mod functions;
mod imports;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use functions::functions;
use imports::{arrows, circles};
use source::{Crate, Line};

const MAX_CIRCLE: usize = 3;
const MAX_LINES: usize = 60;
const MAX_PARAMETERS: usize = 6;
const MAX_FILE_LINES: usize = 700;

/// What share of the lines of the library are tests: it has the search and the verdict, which are
/// wrong without anybody's seeing it.
const LEAST_TESTS: f64 = 0.36;

/// What a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Circle,
    Lines,
    Parameters,
    FileLines,
}

impl Measure {
    fn limit(self) -> usize {
        match self {
            Measure::Circle => MAX_CIRCLE,
            Measure::Lines => MAX_LINES,
            Measure::Parameters => MAX_PARAMETERS,
            Measure::FileLines => MAX_FILE_LINES,
        }
    }
}

/// What may be above its limit for now, but not above this.
struct Allowed {
    measure: Measure,
    /// The crate of a circle, the file, or the file and the function.
    place: &'static str,
    ceiling: usize,
}

const fn allowed(measure: Measure, place: &'static str, ceiling: usize) -> Allowed {
    Allowed { measure, place, ceiling }
}

const ALLOWED: &[Allowed] = &[];

/// What is above its limit.
#[derive(Debug)]
struct Violation {
    measure: Measure,
    place: String,
    value: usize,
    at: Line,
    /// The way around a circle.
    detail: String,
}

#[test]
fn the_code_keeps_its_structure() {
    let violations: Vec<Violation> = crates().iter().flat_map(violations).collect();
    let complaints = complaints(&violations, ALLOWED);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn no_crate_uses_one_below_it() {
    let table = std::fs::read_to_string(repository().join("docs/architecture.md")).unwrap();
    let order = crates_in_order(&table);
    let mut complaints = Vec::new();
    for name in crate_names() {
        let manifest = format!("crates/{name}/Cargo.toml");
        let text = std::fs::read_to_string(repository().join(&manifest)).unwrap();
        let downward = downward(&order, &name, &dependencies(&text));
        complaints.extend(downward.into_iter().map(|complaint| format!("{manifest}: {complaint}")));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn forms_are_named_in_their_files_the_registry_and_tests_only() {
    let names = forms::names(&repository());
    assert!(names.len() >= 4, "the registry is not where it was: {names:?}");
    let named: Vec<String> = crates()
        .iter()
        .flat_map(|source| forms::named(source, &names))
        .map(|(at, what)| format!("{at}: {what}"))
        .collect();
    assert!(named.is_empty(), "{}", named.join("\n"));
}

#[test]
fn a_form_that_is_named_is_found_in_macros_too() {
    let source = planted(&[(
        "lib.rs",
        "fn f(s: Scheme) -> bool {\n    s == Scheme::KEEP\n        || matches!(s, Scheme::FP16)\n        || s.name() == \"int8-weights\"\n        || format!(\"int8-weights\") == s.name()\n        || s == Scheme::default()\n}\n#[cfg(test)]\nmod tests {\n    fn f() -> Scheme { Scheme::KEEP }\n}\n",
    )]);
    let found = forms::named(&source, &["int8-weights".to_owned()]);
    let found: Vec<(usize, &str)> =
        found.iter().map(|(at, what)| (at.line, what.as_str())).collect();
    let expected =
        [(2, "Scheme::KEEP"), (3, "Scheme::FP16"), (4, "int8-weights"), (5, "int8-weights")];
    assert_eq!(found, expected);
}

#[test]
fn flags_are_named_by_the_command_line_only() {
    let others = crates();
    let named: Vec<String> = others
        .iter()
        .filter(|source| source.name != flags::COMMAND_LINE)
        .flat_map(flags::named)
        .map(|(at, text)| format!("{at}: {text}"))
        .collect();
    assert!(named.is_empty(), "{}", named.join("\n"));
    let own = crates()
        .iter()
        .filter(|source| source.name == flags::COMMAND_LINE)
        .map(flags::named)
        .map(|found| found.len())
        .sum::<usize>();
    assert!(own > 10, "the command line is not where it was");
}

#[test]
fn a_flag_is_found_in_strings_macros_and_attributes() {
    let source = planted(&[(
        "lib.rs",
        "/// `--flag` is fine here.\nconst A: &str = \"give --samples\";\nfn f() -> String {\n    format!(\"as by --to {}\", 1)\n}\n#[derive(Error)]\n#[error(\"or --exclude it\")]\nstruct E;\nconst B: &str = \"a -- b, a--b, --- and <--\";\n#[cfg(test)]\nmod tests {\n    const C: &str = \"--in-tests\";\n}\n",
    )]);
    let lines: Vec<usize> = flags::named(&source).iter().map(|(at, _)| at.line).collect();
    assert_eq!(lines, [2, 4, 7]);
}

#[test]
fn the_library_is_tested() {
    let folder = repository().join("crates/modelopt");
    let all: usize =
        ["src", "tests", "examples"].map(|part| lines_below(&folder.join(part))).iter().sum();
    let library = Crate::read("modelopt", &repository(), &folder.join("src/lib.rs"));
    let code: usize = library.files.iter().map(|file| file.lines).sum();
    let tests = all - code - lines_below(&folder.join("examples"));
    let share = tests as f64 / all as f64;
    assert!(share >= LEAST_TESTS, "{tests} of {all} lines are tests: {share:.3}");
}

/// How many lines the Rust files in a folder and below it have.
fn lines_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let lines = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => lines_below(&path),
        Some(end) if end == "rs" => std::fs::read_to_string(&path).unwrap().lines().count(),
        _ => 0,
    };
    entries.map(lines).sum()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn crate_names() -> Vec<String> {
    let folders = std::fs::read_dir(repository().join("crates")).unwrap();
    let mut names: Vec<String> =
        folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn crates() -> Vec<Crate> {
    let repository = repository();
    let mut found = Vec::new();
    for name in crate_names() {
        let roots = ["lib.rs", "main.rs"]
            .map(|file| repository.join("crates").join(&name).join("src").join(file));
        let roots = roots.into_iter().filter(|root| root.exists());
        let before = found.len();
        found.extend(roots.map(|root| Crate::read(&name, &repository, &root)));
        assert!(found.len() > before, "{name} has neither src/lib.rs nor src/main.rs");
    }
    found
}

/// All that is above a limit in a crate.
fn violations(source: &Crate) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut check = |measure: Measure, place: String, value, at: &Line, detail: String| {
        if value > measure.limit() {
            found.push(Violation { measure, place, value, at: at.clone(), detail });
        }
    };
    let arrows = arrows(source);
    for circle in circles(source.files.len(), &arrows) {
        let inside = |file: &usize| circle.contains(file);
        let steps: Vec<String> = arrows
            .iter()
            .filter(|((from, to), _)| inside(from) && inside(to))
            .map(|((_, to), at)| format!("\n    {at} uses {}", source.files[*to].name))
            .collect();
        let at = Line { file: source.files[circle[0]].name.clone(), line: 1 };
        check(Measure::Circle, source.name.clone(), circle.len(), &at, steps.concat());
    }
    for file in &source.files {
        let at = Line { file: file.name.clone(), line: 1 };
        check(Measure::FileLines, file.name.clone(), file.lines, &at, String::new());
    }
    for function in functions(source) {
        let place = format!("{} {}", function.at.file, function.name);
        check(Measure::Lines, place.clone(), function.lines, &function.at, String::new());
        check(Measure::Parameters, place, function.parameters, &function.at, String::new());
    }
    found
}

/// One complaint for each violation that is not allowed, and for each allowance that is not needed.
fn complaints(violations: &[Violation], allowed: &[Allowed]) -> Vec<String> {
    let mut complaints = Vec::new();
    let matches = |violation: &Violation, entry: &Allowed| {
        violation.measure == entry.measure && violation.place == entry.place
    };
    for violation in violations {
        let Violation { measure, place, value, at, detail } = violation;
        let limit = allowed
            .iter()
            .find(|entry| matches(violation, entry))
            .map_or(measure.limit(), |entry| entry.ceiling);
        if *value > limit {
            complaints.push(format!("{at}: {measure:?} of {place}: {value} > {limit}{detail}"));
        }
    }
    for entry in allowed {
        if !violations.iter().any(|violation| matches(violation, entry)) {
            let Allowed { measure, place, .. } = entry;
            complaints
                .push(format!("ALLOWED has {measure:?} of {place}, which is within its limit"));
        }
    }
    complaints
}

/// The crates in the order of the table: `| `name` | …`.
fn crates_in_order(table: &str) -> Vec<String> {
    let names = table.lines().filter_map(|line| line.strip_prefix("| `modelopt"));
    names.map(|rest| format!("modelopt{}", rest.split('`').next().unwrap())).collect()
}

/// The crates of the workspace that a manifest names. Tests may use what stands below.
fn dependencies(manifest: &str) -> Vec<String> {
    fn collect(table: &toml::Table, found: &mut Vec<String>) {
        for (key, value) in table {
            let toml::Value::Table(inner) = value else { continue };
            if key == "dev-dependencies" {
                continue;
            }
            if key.ends_with("dependencies") {
                found.extend(inner.keys().filter(|name| name.starts_with("modelopt")).cloned());
            } else {
                collect(inner, found);
            }
        }
    }
    let mut found = Vec::new();
    collect(&manifest.parse().unwrap(), &mut found);
    found
}

/// What a crate uses that does not stand above it, and the crate itself if it is in no row.
fn downward(order: &[String], name: &str, uses: &[String]) -> Vec<String> {
    let place = |wanted: &str| order.iter().position(|row| row == wanted);
    let Some(own) = place(name) else {
        return vec![format!("the table of docs/architecture.md has no row for {name}")];
    };
    let below = uses.iter().filter(|used| place(used).is_none_or(|place| place >= own));
    below.map(|used| format!("{name} uses {used}, which does not stand above it")).collect()
}

/// A crate made of planted files.
fn planted(files: &[(&str, &str)]) -> Crate {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Crate::read("planted", folder.path(), &folder.path().join("lib.rs"))
}

/// The circles of a planted crate, by names of files.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let source = planted(files);
    let name = |file: usize| source.files[file].name.clone();
    let circles = circles(source.files.len(), &arrows(&source));
    circles.into_iter().map(|circle| circle.into_iter().map(name).collect()).collect()
}

#[test]
fn a_circle_through_siblings_is_found() {
    let circle = circles_of(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; pub(crate) struct A(B);"),
        ("b.rs", "pub(crate) struct B; fn f() { super::c::go(); }"),
        ("c.rs", "pub(crate) fn go() { println!(\"{}\", crate::d::NUMBER) }"),
        ("d.rs", "use crate::a; pub(crate) const NUMBER: usize = size_of::<a::A>();"),
    ]);
    assert_eq!(circle, [["a.rs", "b.rs", "c.rs", "d.rs"]]);
}

#[test]
fn a_child_that_uses_what_its_parent_defines_closes_a_circle() {
    let circle = circles_of(&[
        ("lib.rs", "mod a; struct Rule; fn all() { a::apply(&Rule) }"),
        ("a.rs", "use super::Rule; pub(crate) fn apply(_: &Rule) {}"),
    ]);
    assert_eq!(circle, [["lib.rs", "a.rs"]]);
}

#[test]
fn handing_on_and_declaring_is_no_use() {
    let circle = circles_of(&[
        ("lib.rs", "mod a; mod b; pub use a::A; pub(crate) use b::B;"),
        ("a.rs", "use super::B; pub struct A(B);"),
        ("b.rs", "pub struct B;"),
    ]);
    assert_eq!(circle, [[""; 0]; 0]);
    let circle = circles_of(&[
        ("lib.rs", "mod a; pub use a::A; struct C; fn f() -> A { A::new() }"),
        ("a.rs", "pub struct A(crate::C);"),
    ]);
    assert_eq!(circle, [["lib.rs", "a.rs"]]);
}

#[test]
fn what_only_tests_use_is_no_use() {
    let circle = circles_of(&[
        (
            "lib.rs",
            "mod a; #[cfg(test)] mod testing; struct C; #[cfg(all(test, unix))] mod tests { use crate::a::A; }",
        ),
        (
            "a.rs",
            "pub struct A(crate::C); impl A { #[cfg(test)] fn new() { crate::testing::go() } }",
        ),
    ]);
    assert_eq!(circle, [[""; 0]; 0]);
}

#[test]
fn functions_are_measured_without_self_and_with_their_signature() {
    let source = planted(&[(
        "lib.rs",
        "struct A;\nimpl A {\n    /// Doc.\n    fn go(\n        &self,\n        x: u8,\n    ) {\n    }\n}\n#[test]\nfn t() {}\n",
    )]);
    let functions = functions(&source);
    let [function] = functions.as_slice() else { panic!("{functions:?}") };
    assert_eq!(
        (function.name.as_str(), function.at.line, function.lines, function.parameters),
        ("A::go", 4, 5, 1)
    );
    assert_eq!(source.files[0].lines, 9);
}

#[test]
fn an_allowance_is_a_ceiling_and_must_be_needed() {
    let at = Line { file: "a.rs".to_owned(), line: 1 };
    let place = "a.rs".to_owned();
    let long =
        [Violation { measure: Measure::FileLines, place, value: 900, at, detail: String::new() }];
    let entry = |place, ceiling| [allowed(Measure::FileLines, place, ceiling)];
    assert_eq!(complaints(&long, &[]).len(), 1);
    assert_eq!(complaints(&long, &entry("a.rs", 900)).len(), 0);
    assert_eq!(complaints(&long, &entry("a.rs", 899)).len(), 1);
    assert_eq!(complaints(&long, &entry("b.rs", 900)).len(), 2);
    assert_eq!(complaints(&[], &entry("a.rs", 900)).len(), 1);
}

#[test]
fn a_crate_that_uses_one_below_it_is_found() {
    let order = crates_in_order("| crate |\n| `modelopt-graph` | x |\n| `modelopt` | y |\n");
    assert_eq!(order, ["modelopt-graph", "modelopt"]);
    let manifest = "[dependencies]\nserde = \"1\"\n[dev-dependencies]\nmodelopt-cli = \"1\"\n[target.'cfg(unix)'.dependencies]\nmodelopt = { path = \"x\" }";
    let uses = dependencies(manifest);
    assert_eq!(uses, ["modelopt"]);
    assert_eq!(downward(&order, "modelopt-graph", &uses).len(), 1);
    assert_eq!(downward(&order, "modelopt", &["modelopt-graph".to_owned()]).len(), 0);
    assert_eq!(downward(&order, "modelopt-new", &[]).len(), 1);
}

/// The figures that the limits are for, by crate: for `--nocapture`.
#[test]
fn figures() {
    let mut circles_by_crate: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut over: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for source in crates() {
        let circles = circles(source.files.len(), &arrows(&source));
        let sizes = circles_by_crate.entry(source.name.clone()).or_default();
        sizes.extend(circles.iter().map(Vec::len));
        let over = over.entry(source.name.clone()).or_default();
        for function in functions(&source) {
            over.0 += usize::from(function.lines > MAX_LINES);
            over.1 += usize::from(function.parameters > MAX_PARAMETERS);
        }
    }
    println!("{circles_by_crate:#?}\n{over:#?}");
}
