//! What the program says when something is not as hoped: one headline, then what to do. Snapshots hold
//! the texts as a terminal shows them, exit code first.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Output, finish, quiet, tempdir};
use insta::assert_snapshot;
use tempfile::TempDir;
use xtask::testdata::{case, fixture};

/// A folder with the case's model and samples, so that paths are short and the same everywhere.
fn folder_of(name: &str) -> TempDir {
    let folder = tempdir();
    let from = case(name);
    fs_err::copy(from.join("model.onnx"), folder.path().join("model.onnx")).unwrap();
    fs_err::create_dir(folder.path().join("samples")).unwrap();
    for file in xtask::testdata::npz_files(&from.join("samples")) {
        let name = file.file_name().unwrap();
        fs_err::copy(&file, folder.path().join("samples").join(name)).unwrap();
    }
    folder
}

/// The digits classifier in a folder, as `model.onnx`, with pictures for it.
fn digits() -> TempDir {
    let folder = tempdir();
    for (from, to) in [("cnn.onnx", "model.onnx"), ("heldout.npz", "pictures.npz")] {
        fs_err::copy(fixture("digits").join(from), folder.path().join(to)).unwrap();
    }
    folder
}

/// A run of the program where no library of ONNX Runtime can be found.
fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(crate::support::PROGRAM);
    command.args(arguments.split_whitespace().map(OsString::from)).current_dir(folder);
    // What is named and is not there ends the search for it.
    command.env("PATH", folder).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so");
    quiet(&mut command);
    command
}

/// All that was said, without figures that differ from machine to machine.
fn said(output: &Output) -> String {
    let code = output.code.unwrap_or(-1);
    let text = [output.stderr.as_str(), output.stdout.as_str()]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("\n---\n");
    format!("exit {code}\n{}", text.lines().map(masked).collect::<Vec<_>>().join("\n"))
}

/// Digits of figures with a unit, of small errors and of versions, as `#`. Widths stay, because
/// tables are aligned by them.
fn masked(line: &str) -> String {
    let words: Vec<&str> = line.split_inclusive(' ').collect();
    let is_unit = |word: &str| {
        ["dB", "ms", "µs", "pairs", "MB"].contains(&word.trim().trim_end_matches([',', ')']))
    };
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        let next = words[index + 1..].iter().find(|word| **word != " ");
        let before = words[..index].iter().rev().find(|word| **word != " ");
        let measured = next.is_some_and(|next| is_unit(next)) && word.contains(['.', ':']);
        let version = before.is_some_and(|word| ["tract", "rten"].contains(&word.trim()));
        let error = word.contains("e-") && word.trim().parse::<f64>().is_ok();
        let cosine = word.trim().split('.').nth(1).is_some_and(|digits| digits.len() == 6);
        let limit = before.is_some_and(|word| ["least", "most"].contains(&word.trim()));
        let advised = before.is_some_and(|word| word.trim() == "--min-sqnr");
        if (measured && !limit) || version || error || cosine || advised {
            text.extend(word.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }));
        } else {
            text += word;
        }
    }
    text
}

/// What a run in this folder says.
fn run(folder: &TempDir, arguments: &str) -> String {
    said(&finish(&mut command(folder.path(), arguments)))
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn no_runtime_at_hand() {
    let folder = folder_of("text_classifier");
    assert_snapshot!(run(&folder, "quantize model.onnx -o out.onnx --samples samples"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_named_runtime_does_not_do() {
    let folder = folder_of("text_classifier");
    let arguments = "quantize model.onnx -o out.onnx --samples samples --runtime rten";
    assert_snapshot!(run(&folder, arguments));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn texts_that_no_embedded_runtime_reads() {
    let folder = folder_of("text_classifier");
    assert_snapshot!(run(&folder, "quantize model.onnx -o out.onnx"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn nothing_to_quantize_is_found_before_anything_runs() {
    let folder = folder_of("tree_ensemble");
    assert_snapshot!(run(&folder, "quantize model.onnx -o out.onnx"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn nothing_to_convert_is_found_before_anything_runs() {
    let folder = folder_of("tree_ensemble");
    assert_snapshot!(run(&folder, "convert model.onnx -o out.onnx --to fp16"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn sparse_weights_are_inspected() {
    assert_snapshot!(run(&folder_of("sparse_weight"), "inspect model.onnx"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn sparse_weights_are_planned() {
    assert_snapshot!(run(&folder_of("sparse_weight"), "plan model.onnx"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_an_old_opset_lacks_is_not_offered() {
    assert_snapshot!(run(&folder_of("old_operators"), "plan model.onnx"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_format_that_has_to_change_is_told() {
    let folder = folder_of("old_operators");
    let arguments = "convert model.onnx -o out.onnx --to fp16-weights --no-validate";
    assert_snapshot!(run(&folder, arguments));
}

#[test]
fn the_way_down_after_a_chosen_scheme() {
    let folder = digits();
    let arguments = "quantize model.onnx -o out.onnx --scheme int8-dynamic --min-sqnr 90 \
                     --samples pictures.npz --no-latency --include dense1";
    assert_snapshot!(run(&folder, arguments));
}

#[test]
fn a_limit_that_is_met_is_advised() {
    let folder = digits();
    let arguments = "quantize model.onnx -o out.onnx --min-sqnr 90 --samples pictures.npz \
                     --no-latency --include dense1 --max-trials 2";
    assert_snapshot!(run(&folder, arguments));
}

#[test]
fn the_provider_of_another_runtime() {
    let arguments = "quantize model.onnx -o out.onnx --runtime tract --provider cuda";
    assert_snapshot!(run(&digits(), arguments));
}

#[test]
fn no_library_where_one_is_named() {
    assert_snapshot!(run(&digits(), "quantize model.onnx -o out.onnx --runtime onnxruntime"));
}

#[test]
fn a_file_that_is_not_there() {
    assert_snapshot!(run(&tempdir(), "quantize absent.onnx -o out.onnx"));
}

#[test]
fn a_pattern_that_fits_nothing() {
    let arguments = "quantize model.onnx -o out.onnx --exclude encoder*";
    assert_snapshot!(run(&digits(), arguments));
}

#[test]
fn a_plan_for_another_model() {
    let folder = digits();
    let plan = "version = 1\n\n[[layer]]\nname = \"encoder.0\"\nscheme = \"int8-weights\"\n";
    fs_err::write(folder.path().join("plan.toml"), plan).unwrap();
    assert_snapshot!(run(&folder, "quantize model.onnx -o out.onnx --plan plan.toml"));
}

#[test]
fn a_model_that_asks_for_too_much() {
    let folder = tempdir();
    let model = folder.path().join("model.onnx");
    fs_err::copy(fixture("attacks/fold_range.onnx"), model).unwrap();
    assert_snapshot!(run(&folder, "quantize model.onnx -o out.onnx --min-weight-bytes 0"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn long_failures_stand_below_the_table() {
    let folder = folder_of("text_classifier");
    let text = run(&folder, "bench model.onnx --samples samples --runtime tract,rten");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    assert_snapshot!(text);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn an_error_for_programs() {
    let folder = folder_of("text_classifier");
    let arguments = "quantize model.onnx -o out.onnx --samples samples --runtime rten --json";
    assert_snapshot!(said(&Output {
        stderr: String::new(),
        ..finish(&mut command(folder.path(), arguments))
    }));
}

#[test]
fn a_pipe_is_called_what_it_is() {
    let folder = tempdir();
    fs_err::write(folder.path().join("text"), "no model").unwrap();
    let text = fs_err::File::open(folder.path().join("text")).unwrap();
    let mut command = command(folder.path(), "inspect -");
    let output = command.stdin(Stdio::from(text.into_file())).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains('/'), "{stderr}");
    assert_snapshot!(stderr);
}
