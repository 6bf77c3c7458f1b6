//! The document as JUnit XML, which every CI shows.

use modelopt_validate::{Check, Unit, Unjudged};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::{Document, Run, wording};

/// The subject of what is not about one output.
const MODEL: &str = "model";

impl Document {
    /// The verdict as JUnit XML: one suite, `modelopt.` and the command.
    ///
    /// Each runtime and each check is a test case, whose class is the output that was judged or
    /// `model`. A figure past its limit is a failure; a target that could not run the models is an
    /// error; limits that had nothing to judge and other runtimes that failed are skipped.
    pub fn to_junit(&self) -> String {
        let mut suite = TestSuite::new(plain(&format!("modelopt.{}", self.command)));
        for (name, value) in properties(self) {
            suite.add_property((name, plain(&value).as_str()));
        }
        for (at, run) in self.runs.iter().enumerate() {
            suite.add_test_case(run_case(run, at == 0));
        }
        if let Some(verdict) = &self.verdict {
            suite.add_test_cases(verdict.checks.iter().map(check_case));
            suite.add_test_cases(verdict.unjudged.iter().map(unjudged_case));
        }
        let mut report = Report::new("modelopt");
        report.add_test_suite(suite);
        // Writing to memory is all that could fail.
        report.to_string().unwrap_or_default()
    }
}

fn properties(document: &Document) -> Vec<(&'static str, String)> {
    let mut properties = vec![("original", document.original.name.as_str().to_owned())];
    if let Some(candidate) = &document.candidate {
        properties.push(("candidate", candidate.name.as_str().to_owned()));
    }
    if let Some(samples) = &document.samples {
        properties.push(("samples", wording::samples(samples)));
    }
    if let Some(machine) = &document.machine {
        properties.push(("machine", wording::machine(machine)));
    }
    properties.push(("version", document.tool_version.clone()));
    properties
}

fn run_case(run: &Run, target: bool) -> TestCase {
    let name = format!("runs in {}", run.runtime.name);
    let Some(failure) = &run.failure else {
        let runtime = wording::runtime(&run.runtime);
        return passed(MODEL, &name, &format!("{runtime}: {}", wording::settings(&run.runtime)));
    };
    let status = if target {
        TestCaseStatus::non_success(NonSuccessKind::Error)
    } else {
        TestCaseStatus::skipped()
    };
    not_passed(MODEL, &name, status, "runtime", failure)
}

fn check_case(check: &Check) -> TestCase {
    let figure = wording::figure(check.value, check.unit);
    let unit = if check.unit == Unit::Output { " (unit of the output)" } else { "" };
    let mut about = format!("{figure}, limit {}{unit}", wording::limit(check));
    if let Some(note) = &check.note {
        about = format!("{about}: {note}");
    }
    if check.pass {
        return passed(&check.subject, &check.name, &about);
    }
    let status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    not_passed(&check.subject, &check.name, status, "limit", &about)
}

fn unjudged_case(left: &Unjudged) -> TestCase {
    not_passed(MODEL, &left.name, TestCaseStatus::skipped(), "limit", &left.reason.to_string())
}

/// What there is to say of a passed test case is its output.
fn passed(class: &str, name: &str, about: &str) -> TestCase {
    let mut case = TestCase::new(plain(name), TestCaseStatus::success());
    case.set_classname(plain(class)).set_system_out(plain(about));
    case
}

/// What there is to say of any other is its message.
fn not_passed(
    class: &str,
    name: &str,
    mut status: TestCaseStatus,
    kind: &str,
    message: &str,
) -> TestCase {
    status.set_type(kind).set_message(plain(message));
    let mut case = TestCase::new(plain(name), status);
    case.set_classname(plain(class));
    case
}

/// Names as they are, but for characters that XML 1.0 forbids or that end a line, which are
/// written as Rust escapes. `quick_junit` alone would drop them, and with an escape character all
/// text that a terminal would take for a command; it knows nothing of U+FFFE and U+FFFF.
fn plain(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn only_what_xml_cannot_hold_is_escaped() {
        assert_eq!(plain("/conv_1/Convé<&\"\u{1f600}"), "/conv_1/Convé<&\"\u{1f600}");
        assert_eq!(plain("a\u{0}b\nc\t\u{1b}[31m\u{9b}"), r"a\u{0}b\nc\t\u{1b}[31m\u{9b}");
        assert_eq!(plain("\u{fffd}\u{fffe}\u{ffff}"), "\u{fffd}\\u{fffe}\\u{ffff}");
    }
}
