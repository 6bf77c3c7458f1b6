//! The CI files that docs/ci.md gives away: shown there as they are, and accepted by linters that
//! do refuse mistakes.

use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::testdata;

const GITHUB: CiFile = CiFile { name: "github-actions.yml", schema: "vendor.github-workflows" };
const GITLAB: CiFile = CiFile { name: "gitlab-ci.yml", schema: "vendor.gitlab-ci" };

/// `on` is a key of every workflow, and YAML 1.1 reads it as true.
const YAMLLINT: &str = "{extends: default, rules: {document-start: disable, \
    line-length: {max: 100}, truthy: {check-keys: false}}}";

/// Actions of GitHub itself are pinned by major version, any other by commit.
const ZIZMOR: &str = "\
rules:
  unpinned-uses:
    config:
      policies: {actions/*: ref-pin, '*': hash-pin}
";

struct CiFile {
    name: &'static str,
    /// What check-jsonschema calls the schema that it carries.
    schema: &'static str,
}

impl CiFile {
    fn text(&self) -> String {
        std::fs::read_to_string(docs().join("ci").join(self.name)).unwrap()
    }

    /// What the linters say of a text in this format; nothing if they accept it.
    fn lint(&self, text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(self.name);
        let config = folder.path().join("zizmor.config");
        std::fs::write(&file, text).unwrap();
        std::fs::write(&config, ZIZMOR).unwrap();
        let mut linters = vec![
            linter("check-jsonschema", ["--builtin-schema", self.schema].as_slice()),
            linter("yamllint", &["--strict", "--format", "parsable", "--config-data", YAMLLINT]),
        ];
        if self.name == GITHUB.name {
            let mut zizmor =
                linter("zizmor", &["--offline", "--strict-collection", "--persona", "auditor"]);
            zizmor.arg("--config").arg(config);
            linters.push(zizmor);
        }
        linters.into_iter().filter_map(|linter| complaint(linter, &file)).collect()
    }

    /// Asserts that a mistake is found by the linter whose words these are.
    fn refuses(&self, right: &str, wrong: &str, words: &str) {
        let text = self.text();
        assert!(text.contains(right), "{} has no {right:?}", self.name);
        let complaints = self.lint(&text.replacen(right, wrong, 1));
        let found = complaints.iter().any(|complaint| complaint.contains(words));
        assert!(found, "{wrong:?} in {} gives {complaints:#?}", self.name);
    }
}

fn docs() -> PathBuf {
    testdata::workspace_root().join("docs")
}

fn linter(name: &str, arguments: &[&str]) -> Command {
    let python = testdata::python();
    let program =
        python.parent().unwrap().join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn complaint(mut linter: Command, file: &Path) -> Option<String> {
    let output = linter.arg(file).output().unwrap_or_else(|error| panic!("{linter:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    (!output.status.success()).then(|| String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn the_guide_shows_the_files_as_they_are() {
    let guide = std::fs::read_to_string(docs().join("ci.md")).unwrap();
    let blocks: Vec<&str> = guide
        .split("\n```yaml\n")
        .skip(1)
        .map(|block| block.split_inclusive("\n```").next().unwrap().trim_end_matches("```"))
        .collect();
    assert_eq!(blocks, [GITHUB.text(), GITLAB.text()]);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn linters_accept_both_files() {
    for file in [GITHUB, GITLAB] {
        assert_eq!(file.lint(&file.text()), [""; 0], "{}", file.name);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn linters_find_mistakes() {
    GITHUB.refuses("runs-on:", "run-on:", "'runs-on' is a required property");
    GITHUB.refuses("    steps:\n", "    step:\n", "$.jobs.quantize");
    GITHUB.refuses("        if: always()\n", "        when: always()\n", "$.jobs.quantize");
    GITHUB.refuses("$MODELOPT_REV", "${{ github.head_ref }}", "template-injection");
    GITHUB.refuses("permissions:\n  contents: read\n", "", "excessive-permissions");
    GITHUB.refuses("actions/setup-python@v6", "other/setup-python@v6", "unpinned-uses");
    GITHUB.refuses("      - name: Quantize\n", "     - name: Quantize\n", "(syntax)");
    GITLAB.refuses("  script:\n", "  scripts:\n", "$.quantize");
    GITLAB.refuses("when: always\n", "when: allways\n", "$.quantize");
    GITLAB.refuses("  artifacts:\n", "  cache: []\n  artifacts:\n", "duplication of key");
}

#[test]
fn both_files_do_what_the_guide_says() {
    for file in [GITHUB, GITLAB] {
        // A folded command line is the words between, whatever the indentation.
        let words = file.text().split_whitespace().collect::<Vec<_>>().join(" ");
        for command in [
            "modelopt quantize model.onnx -o model.int8.onnx --samples samples/ \
             --runtime onnxruntime --report report/",
            "modelopt report report/report.json --baseline baseline.json",
        ] {
            assert!(words.contains(command), "{}: {command}", file.name);
        }
    }
    assert!(GITHUB.text().contains("cat report/report.md >> \"$GITHUB_STEP_SUMMARY\""));
    assert!(GITLAB.text().contains("junit: report/junit.xml"));
}
