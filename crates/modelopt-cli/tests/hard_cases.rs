//! What tools of this kind are known to get wrong, from file to file.
//!
//! Every hand-made graph goes through each scheme once; the checker, onnxruntime and the
//! embedded runtimes then say what they think of all results.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::support::{Output, files, run, run_in, tempdir};
use insta::assert_snapshot;
use serde_json::Value;
use xtask::machine::int8_floor_db;
use xtask::oracle::{self, Answer, RunJob, RunResult};
use xtask::parallel::parallel;
use xtask::testdata::fixture;

const SCHEMES: [&str; 2] = ["int8-weights", "int8-dynamic"];

/// The lowest SQNR in dB that an output may have.
const FLOORS: [(&str, f64); 2] = [("int8-weights", 30.0), ("int8-dynamic", 30.0)];

/// Outputs that may fall below, with the reason.
const LOWER: &[(&str, &str, f64, &str)] = &[(
    "int8-dynamic",
    "shared_identity",
    26.0,
    "nine products in a row through one weight, so the same error nine times",
)];

/// Models of which an embedded runtime must have run at least so many: the check of what they
/// say would prove nothing otherwise.
const RUN_BY: [(&str, usize); 2] = [("tract", 55), ("rten", 45)];

fn graph(name: &str) -> PathBuf {
    fixture(format!("graphs/{name}.onnx"))
}

fn sample(name: &str) -> PathBuf {
    fixture(format!("graphs/{name}.npz"))
}

fn names() -> Vec<String> {
    let listed = files(&fixture("graphs"));
    let models = listed.iter().filter(|path| path.extension().is_some_and(|e| e == "onnx"));
    models.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn arguments(original: &Path, candidate: &Path, scheme: &str) -> Vec<OsString> {
    let threshold = ["--min-weight-bytes", "1024"];
    [
        &args!["quantize", original, "-o", candidate, "--scheme", scheme, "--json"][..],
        &threshold.map(OsString::from),
        &["--no-validate".into()],
    ]
    .concat()
}

/// A graph with what became of it.
struct Case {
    name: String,
    scheme: &'static str,
    original: PathBuf,
    candidate: PathBuf,
    output: Output,
}

impl Case {
    fn label(&self) -> String {
        format!("{}, {}", self.name, self.scheme)
    }

    fn document(&self) -> Value {
        self.output.json()
    }

    fn layers(&self) -> Vec<Layer> {
        layers(&self.document()["plan"], "layer")
    }

    fn is_changed(&self) -> bool {
        self.layers().iter().any(|layer| layer.scheme != "keep")
    }

    fn floor(&self) -> f64 {
        let lower =
            LOWER.iter().find(|(scheme, name, ..)| (*scheme, *name) == (self.scheme, &self.name));
        let usual = FLOORS.iter().find(|(scheme, _)| *scheme == self.scheme).unwrap().1;
        let floor = lower.map_or(usual, |(.., floor, _)| *floor);
        if self.scheme == "int8-dynamic" { int8_floor_db(floor) } else { floor }
    }
}

/// One line of a plan.
#[derive(Debug, PartialEq, Eq)]
struct Layer {
    name: String,
    op: String,
    scheme: String,
    reason: String,
}

fn layers(lines: &Value, name: &str) -> Vec<Layer> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = lines.as_array().unwrap().iter();
    lines
        .map(|line| Layer {
            name: text(line, name),
            op: text(line, "op"),
            scheme: text(line, "scheme"),
            reason: text(line, "reason"),
        })
        .collect()
}

/// What every graph comes to with each scheme, made once for all tests.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hard_cases");
    let _ = fs_err::remove_dir_all(&root);
    let jobs: Vec<(String, &str)> =
        names().into_iter().flat_map(|name| SCHEMES.map(|scheme| (name.clone(), scheme))).collect();
    parallel(&jobs, |(name, scheme)| {
        let folder = root.join(scheme);
        fs_err::create_dir_all(&folder).unwrap();
        let original = graph(name);
        let candidate = folder.join(format!("{name}.onnx"));
        let output = run(arguments(&original, &candidate, scheme));
        Case { name: name.clone(), scheme, original, candidate, output }
    })
});

fn case(name: &str, scheme: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name && case.scheme == scheme).unwrap()
}

/// A graph with both schemes.
fn both(name: &str) -> [&'static Case; 2] {
    SCHEMES.map(|scheme| case(name, scheme))
}

fn inspect(model: &Path) -> Value {
    run(args!["inspect", model, "--json"]).expect(0).json()
}

/// Number and bytes of the tensors of each type.
fn weights(model: &Path) -> BTreeMap<String, (u64, u64)> {
    let inspected = inspect(model);
    let entries = inspected["weights"].as_array().unwrap().iter();
    let number = |entry: &Value, key: &str| entry[key].as_u64().unwrap();
    entries
        .map(|entry| {
            let figures = (number(entry, "tensors"), number(entry, "bytes"));
            (entry["type"].as_str().unwrap().to_owned(), figures)
        })
        .collect()
}

fn operators(model: &Path) -> BTreeSet<String> {
    let inspected = inspect(model);
    let entries = inspected["operators"].as_array().unwrap().iter();
    entries.map(|entry| entry["operator"].as_str().unwrap().to_owned()).collect()
}

/// Integer products share one zero point for their weights.
fn zero_points(case: &Case) -> u64 {
    let dynamic = case.scheme == "int8-dynamic";
    u64::from(dynamic && operators(&case.candidate).contains("MatMulInteger"))
}

/// Checks that all layers of a graph were changed but for tiny ones, that its int8 weights are so
/// many, and that little is left in float.
#[track_caller]
fn check_quantized(name: &str, tensors: u64) {
    for case in both(name) {
        let label = case.label();
        let layers = case.layers().into_iter();
        let kept: Vec<Layer> = layers
            .filter(|line| line.scheme == "keep" && !line.reason.contains("below the threshold"))
            .collect();
        assert!(kept.is_empty() && case.is_changed(), "{label}: {kept:?}");
        let weights = weights(&case.candidate);
        assert_eq!(weights["int8"].0, tensors + zero_points(case), "{label}: {weights:?}");
        let before = self::weights(&case.original);
        for float in ["float", "float16", "bfloat16", "double"] {
            let bytes = |weights: &BTreeMap<String, (u64, u64)>| {
                weights.get(float).map_or(0, |(_, bytes)| *bytes)
            };
            let left = bytes(&weights);
            assert!(left < 1024 || left * 2 < bytes(&before), "{label}: {before:?} to {weights:?}");
        }
        check_smaller(case);
    }
}

#[track_caller]
fn check_smaller(case: &Case) {
    let size = &case.document()["size"];
    let [before, after] =
        ["original_bytes", "candidate_bytes"].map(|key| size[key].as_u64().unwrap());
    assert_eq!(after, fs_err::metadata(&case.candidate).unwrap().len(), "{}", case.label());
    assert!(after < before, "{}: {before} to {after} bytes", case.label());
}

/// Checks that a layer was left alone, for this reason, with both schemes.
#[track_caller]
fn check_kept(name: &str, layer: &str, reason: &str) {
    for case in both(name) {
        let layers = case.layers();
        let found = layers.iter().find(|line| line.name == layer);
        let found = found.unwrap_or_else(|| panic!("{}: no {layer} in {layers:?}", case.label()));
        assert_eq!(found.scheme, "keep", "{}: {found:?}", case.label());
        assert!(found.reason.contains(reason), "{}: {found:?}", case.label());
    }
}

/// Checks that nothing was changed, and that the file says the same as before.
#[track_caller]
fn check_untouched(name: &str) {
    for case in both(name) {
        assert!(!case.is_changed(), "{}: {:?}", case.label(), case.layers());
        let stderr = &case.output.stderr;
        assert!(stderr.starts_with("warning: nothing to do"), "{}: {stderr}", case.label());
        check_same_model(&[(case.original.clone(), case.candidate.clone())]);
    }
}

#[track_caller]
fn check_same_model(pairs: &[(PathBuf, PathBuf)]) {
    for (answer, (_, copy)) in oracle::same_models(pairs).unwrap().into_iter().zip(pairs) {
        assert!(answer.equal, "{}: {:?}", copy.display(), answer.reason);
    }
}

/// What onnxruntime makes of each case on the graph's sample, one per case. Those that it refuses
/// in the original have an error.
static RESULTS: LazyLock<Vec<RunResult>> = LazyLock::new(|| {
    let jobs: Vec<RunJob> = CASES
        .iter()
        .map(|case| RunJob {
            original: case.original.clone(),
            candidate: case.candidate.clone(),
            samples: vec![sample(&case.name)],
            time: false,
        })
        .collect();
    oracle::run_models(&jobs).unwrap()
});

/// Checks that whatever of the originals is accepted is accepted of the results.
fn check_accepted(tool: &str, ask: impl Fn(&[PathBuf]) -> anyhow::Result<Vec<Answer>>) {
    let originals = CASES.iter().map(|case| case.original.clone());
    let candidates = CASES.iter().map(|case| case.candidate.clone());
    let answers = ask(&originals.chain(candidates).collect::<Vec<_>>()).unwrap();
    let (before, after) = answers.split_at(CASES.len());
    let refused: Vec<String> = CASES
        .iter()
        .zip(before.iter().zip(after))
        .filter(|(_, (before, after))| before.is_ok() && !after.is_ok())
        .map(|(case, (_, after))| format!("{}: {}", case.label(), after.error.as_ref().unwrap()))
        .collect();
    assert!(refused.is_empty(), "{tool}: {refused:#?}");
    let accepted = before.iter().filter(|answer| answer.is_ok()).count();
    assert!(accepted > CASES.len() * 4 / 5, "{tool} accepts only {accepted} of the originals");
}

#[test]
fn every_graph_comes_through() {
    for case in CASES.iter() {
        let Output { code, stderr, .. } = &case.output;
        assert_eq!(*code, Some(0), "{}: {stderr}", case.label());
        // A format that had to change is told as well.
        let is_format = |line: &&str| line.starts_with("warning: the IR version changes");
        let warnings: Vec<&str> = stderr.lines().filter(|line| !is_format(line)).collect();
        let warned = matches!(warnings[..], [only] if only.starts_with("warning: nothing to do"));
        assert!(
            if case.is_changed() { warnings.is_empty() } else { warned },
            "{}: {stderr}",
            case.label()
        );
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_onnx_checker_accepts_what_it_accepted() {
    check_accepted("the checker", oracle::check_models);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn onnxruntime_loads_what_it_loaded() {
    check_accepted("onnxruntime", oracle::load_models);
}

#[test]
fn inputs_and_outputs_stay() {
    for case in CASES.iter() {
        let [before, after] = [&case.original, &case.candidate].map(|path| inspect(path));
        assert_eq!(before["outputs"], after["outputs"], "{}", case.label());
        // Until IR version 3 the format demanded initializers among the inputs; nobody could set them.
        let defaults_count = before["ir_version"].as_i64().unwrap() > 3;
        let inputs = |model: &Value| -> Vec<Value> {
            let all = model["inputs"].as_array().unwrap().iter();
            all.filter(|port| defaults_count || port["has_default"] == false).cloned().collect()
        };
        assert_eq!(inputs(&before), inputs(&after), "{}", case.label());
        assert!(after["inputs"].as_array().unwrap().len() >= inputs(&before).len());
        // All that is added is the stamp.
        let mut metadata = after["metadata"].as_object().unwrap().clone();
        metadata.retain(|key, _| !key.starts_with("modelopt."));
        assert_eq!(before["metadata"], Value::Object(metadata), "{}", case.label());
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn outputs_in_onnxruntime_are_close() {
    let mut worst = f64::INFINITY;
    for (case, result) in CASES.iter().zip(RESULTS.iter()) {
        if let Some(error) = &result.error {
            let original = &oracle::load_models(std::slice::from_ref(&case.original)).unwrap()[0];
            assert!(!original.is_ok(), "{}: {error}", case.label());
            continue;
        }
        let ports = inspect(&case.original)["outputs"].clone();
        for (output, port) in result.outputs.iter().zip(ports.as_array().unwrap()) {
            let label = format!("{}: {output:?}", case.label());
            assert!(output.same_type && output.same_shape, "{label}");
            let ty = port["type"].as_str().unwrap();
            let is_float = ["float", "double", "bfloat"].iter().any(|float| ty.starts_with(float));
            assert!(is_float || output.equal, "{label}");
            assert!(case.is_changed() || output.equal, "{label}");
            assert!(output.sqnr_db >= case.floor(), "{label}");
            worst = worst.min(output.sqnr_db);
        }
    }
    println!("the worst output is at {worst:.1} dB");
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn embedded_runtimes_run_what_they_ran_and_agree() {
    for (runtime, least) in RUN_BY {
        let runs: Vec<&Case> = CASES.iter().collect();
        let ran = parallel(&runs, |case| {
            let compare = |candidate: &Path| {
                run(args![
                    "compare",
                    case.original,
                    candidate,
                    "--runtime",
                    runtime,
                    "--samples",
                    sample(&case.name),
                    "--no-gate",
                    "--no-latency",
                    "--json",
                ])
            };
            let before = compare(&case.original);
            assert!(before.is_orderly(), "{}: {}", case.label(), before.stderr);
            if before.code != Some(0) {
                return false;
            }
            let after = compare(&case.candidate).expect(0).json();
            for output in after["runs"][0]["parity"]["outputs"].as_array().unwrap() {
                let label = format!("{} in {runtime}: {output}", case.label());
                assert_eq!(output["type_equal"], true, "{label}");
                assert_eq!(output["shape_equal"], true, "{label}");
                match &output["float"]["sqnr_db"] {
                    Value::Number(sqnr) => {
                        assert!(sqnr.as_f64().unwrap() >= case.floor(), "{label}");
                    }
                    Value::String(sqnr) => assert_eq!(sqnr, "inf", "{label}"),
                    _ => assert_eq!(output["mismatches"], 0, "{label}"),
                }
            }
            true
        });
        let count = ran.into_iter().filter(|ran| *ran).count() / SCHEMES.len();
        println!("{runtime} ran {count} of {}", names().len());
        assert!(count >= least, "{runtime} ran only {count}");
    }
}

#[test]
fn no_file_grows() {
    for case in CASES.iter().filter(|case| case.is_changed()) {
        check_smaller(case);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn quantizing_a_result_again_changes_nothing() {
    let folder = tempdir();
    let cases: Vec<&Case> = CASES.iter().collect();
    let pairs = parallel(&cases, |case| {
        let again = folder.path().join(format!("{}.{}.onnx", case.name, case.scheme));
        let output = run(arguments(&case.candidate, &again, case.scheme)).expect(0);
        let warned = output.stderr.starts_with("warning: nothing to do");
        assert!(warned, "{}: {}", case.label(), output.stdout);
        (case.candidate.clone(), again)
    });
    check_same_model(&pairs);
}

#[test]
fn every_layer_has_a_reason() {
    for case in CASES.iter() {
        for layer in case.layers() {
            assert!(!layer.reason.trim().is_empty(), "{}: {layer:?}", case.label());
        }
        let planned = run(args![
            "plan",
            case.original,
            "--scheme",
            case.scheme,
            "--min-weight-bytes",
            "1024",
            "--json",
        ]);
        let planned = layers(&planned.expect(0).json()["plan"]["layer"], "name");
        assert_eq!(planned, case.layers(), "{}", case.label());
    }
}

#[test]
fn plans_say_why() {
    for name in [
        "already_quantized_qdq",
        "gemm_variants",
        "if_nested",
        "ir7_overridable",
        "nan_weights",
        "opset10",
        "outputs_alias",
        "partly_quantized",
    ] {
        let arguments = args!["plan", graph(name), "--min-weight-bytes", "1024"];
        assert_snapshot!(format!("plan_{name}"), run(arguments).expect(0).stdout);
    }
}

#[test]
fn weights_in_constant_nodes() {
    check_quantized("constant_weights", 2);
    for case in both("constant_weights") {
        assert!(!operators(&case.candidate).contains("Constant"), "{}", case.label());
    }
}

#[test]
fn weights_in_branches_and_bodies() {
    check_quantized("if_branches", 3);
    check_quantized("loop_body", 2);
    check_quantized("scan_body", 2);
    check_quantized("if_shapes_differ", 1);
}

#[test]
fn weights_two_levels_deep_and_captured_from_outside() {
    // One outer weight that three branches at two depths read, and one of the inmost branch.
    check_quantized("if_nested", 2);
}

#[test]
fn names_that_hide_others() {
    check_quantized("shadowed_names", 4);
}

#[test]
fn a_weight_shared_through_aliases_is_stored_once() {
    check_quantized("shared_identity", 1);
    for case in both("shared_identity") {
        assert_eq!(case.layers().len(), 9, "{:?}", case.layers());
    }
}

#[test]
fn a_weight_in_two_roles_is_stored_once() {
    check_quantized("weight_two_roles", 1);
}

#[test]
fn gemm_of_every_kind() {
    check_quantized("gemm_variants", 4);
    let dynamic = case("gemm_variants", "int8-dynamic").layers();
    let count = dynamic.iter().filter(|layer| layer.scheme == "int8-dynamic").count();
    assert_eq!(count, 7, "all but those whose weight is on the left: {dynamic:?}");
}

#[test]
fn old_operator_sets() {
    for (name, tensors) in
        [("opset7", 3), ("opset8", 3), ("opset9", 3), ("opset10", 3), ("opset12", 3)]
    {
        check_quantized(name, tensors);
        for case in both(name) {
            let [before, after] = [&case.original, &case.candidate].map(|path| inspect(path));
            assert_eq!(before["opsets"], after["opsets"], "{}", case.label());
            let new = &operators(&case.candidate) - &operators(&case.original);
            assert!(!new.contains("DequantizeLinear"), "{}: {new:?}", case.label());
        }
    }
    // What the default scheme wants came with operator set 11.
    for name in ["opset7", "opset8", "opset9", "opset10"] {
        let layers = case(name, "int8-dynamic").layers();
        assert!(layers.iter().all(|layer| layer.scheme == "int8-weights"), "{name}: {layers:?}");
    }
}

#[test]
fn scales_are_per_channel_at_every_operator_set() {
    // The weights that were float are int8, and what float is left is one scale per channel.
    for name in ["opset7", "opset8", "opset9", "opset10"] {
        let weights = weights(&case(name, "int8-weights").candidate);
        let (tensors, bytes) = weights["float"];
        assert!(bytes > 4 * 4 * tensors, "{name}: {weights:?}");
    }
}

#[test]
fn unused_weights_are_gone() {
    for case in both("unused_initializers") {
        let before = fs_err::metadata(&case.original).unwrap().len();
        let after = fs_err::metadata(&case.candidate).unwrap().len();
        assert!(after * 10 < before, "{}: {before} to {after} bytes", case.label());
    }
}

#[test]
fn wrong_declarations_do_not_mislead() {
    check_quantized("stale_value_info", 2);
    check_quantized("wrong_output_shape", 2);
    check_quantized("wrong_value_type", 2);
    check_quantized("no_shapes", 2);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn quantized_parts_are_left_alone() {
    for (name, layer) in [
        ("already_quantized_qdq", "conv_c"),
        ("already_quantized_qdq", "conv_y_float"),
        ("already_quantized_dynamic", "matmulinteger_a_int"),
        ("already_quantized_qlinear", "qlinearconv_c"),
        ("already_quantized_qlinear", "qlinearmatmul_m"),
        ("already_int8_weights", "conv_y0"),
        ("already_int8_weights", "matmul_y1"),
        ("already_nbits", "matmulnbits_m"),
        ("dynamic_quantize_lstm", "dynamicquantizelstm_sequence"),
        ("partly_quantized", "matmulinteger_a_int"),
    ] {
        check_kept(name, layer, "already quantized");
    }
    for name in [
        "already_quantized_qdq",
        "already_quantized_dynamic",
        "already_quantized_qlinear",
        "already_int8_weights",
    ] {
        check_untouched(name);
    }
    // What is float beside them is quantized.
    for name in ["already_nbits", "dynamic_quantize_lstm", "partly_quantized"] {
        for case in both(name) {
            assert_eq!(
                case.layers().iter().filter(|l| l.scheme == case.scheme).count(),
                1,
                "{name}"
            );
        }
    }
}

#[test]
fn nothing_but_the_output_appears() {
    for scheme in SCHEMES {
        let root = tempdir();
        let folder = |name: &str| {
            let folder = root.path().join(name);
            fs_err::create_dir(&folder).unwrap();
            folder
        };
        let [input, output, work, temporary] = ["input", "output", "work", "temporary"].map(folder);
        let model = input.join("model.onnx");
        fs_err::copy(graph("constant_weights"), &model).unwrap();
        fs_err::copy(sample("constant_weights"), input.join("sample.npz")).unwrap();
        set_read_only(&input, true);
        let mut command = std::process::Command::new(crate::support::PROGRAM);
        command
            .args(args!["quantize", model, "-o", output.join("small.onnx"), "--scheme", scheme])
            .args(args!["--min-weight-bytes", "1024", "--samples", input.join("sample.npz")])
            .current_dir(&work)
            .env("TMPDIR", &temporary);
        let done = crate::support::finish(&mut command).expect(0);
        set_read_only(&input, false);
        assert!(done.stdout.contains("passed"), "{}", done.stdout);
        assert_eq!(
            files(root.path()),
            ["input/model.onnx", "input/sample.npz", "output/small.onnx"].map(PathBuf::from)
        );
        assert_eq!(fs_err::read(&model).unwrap(), fs_err::read(graph("constant_weights")).unwrap());
    }
}

fn set_read_only(folder: &Path, read_only: bool) {
    let mut permissions = fs_err::metadata(folder).unwrap().permissions();
    // Setting it back makes the folder writable for all, and then it is removed.
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(read_only);
    fs_err::set_permissions(folder, permissions).unwrap();
}

#[test]
fn runs_beside_each_other_do_not_disturb_each_other() {
    let folder = tempdir();
    let outputs: Vec<PathBuf> = (0..8).map(|i| folder.path().join(format!("{i}.onnx"))).collect();
    let bytes = parallel(&outputs, |output| {
        run(arguments(&graph("constant_weights"), output, "int8-dynamic")).expect(0);
        fs_err::read(output).unwrap()
    });
    assert!(bytes.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(files(folder.path()).len(), outputs.len());
}

#[test]
fn embeddings_are_gathered_small() {
    check_quantized("embedding_gather", 2);
    // The table of Gather and of the last product, and the layer between.
    check_quantized("embedding_tied", 2);
    for name in ["embedding_gather", "embedding_tied"] {
        for case in both(name) {
            let layers = case.layers();
            let table = layers.iter().find(|layer| layer.op == "Gather").unwrap();
            assert_eq!(table.scheme, "int8-weights", "{}", case.label());
            assert!(operators(&case.candidate).contains("Gather"), "{}", case.label());
        }
    }
}

#[test]
fn convolutions_of_every_kind() {
    check_quantized("conv1d", 2);
    check_quantized("conv3d", 1);
    check_quantized("conv_transpose", 2);
    check_quantized("conv_attributes", 3);
    check_quantized("depthwise_conv", 2);
    check_quantized("batchnorm_conv", 5);
}

#[test]
fn recurrent_layers() {
    // W and R.
    check_quantized("lstm", 2);
    check_quantized("gru", 2);
    check_quantized("rnn", 2);
}

#[test]
fn products_of_every_shape() {
    check_quantized("matmul_left", 1);
    check_quantized("matmul_batched", 2);
    check_quantized("transposed_weight", 2);
    check_quantized("reshaped_weight", 4);
    check_quantized("weight_used_by_add", 2);
}

#[test]
fn other_float_types() {
    check_quantized("fp16_model", 1);
    check_quantized("fp16_weights", 1);
    check_quantized("bf16_weights", 1);
    check_quantized("double_model", 2);
}

#[test]
fn initializers_that_are_listed_as_inputs() {
    check_quantized("ir3_inputs", 1);
    for case in both("ir3_inputs") {
        let after = inspect(&case.candidate);
        assert_eq!(after["ir_version"], 4, "{}", case.label());
        let ports = after["inputs"].as_array().unwrap();
        assert!(ports.iter().all(|port| port["has_default"] == false), "{}", case.label());
    }
}

#[test]
fn inputs_that_callers_may_override() {
    check_kept("ir7_overridable", "matmul_m", "'default_w' is an input with a default");
    let folder = tempdir();
    for scheme in SCHEMES {
        let output = folder.path().join("frozen.onnx");
        let more = args!["--freeze-inputs"];
        let frozen =
            [arguments(&graph("ir7_overridable"), &output, scheme), more.to_vec()].concat();
        let document = run(frozen).expect(0).json();
        let layers = layers(&document["plan"], "layer");
        assert!(layers.iter().all(|layer| layer.scheme == scheme), "{layers:?}");
        let ports = inspect(&output)["inputs"].clone();
        assert!(
            ports.as_array().unwrap().iter().all(|port| port["has_default"] == false),
            "{ports}"
        );
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn weights_that_are_outputs() {
    check_kept("weight_is_output", "matmul_y", "also an output");
    check_untouched("weight_is_output");
    check_kept("outputs_alias", "matmul_y", "also an output");
    check_kept("outputs_alias", "identity_w_copy", "also an output");
    // What a branch returns goes on to a product.
    check_quantized("if_returns_weight", 2);
}

#[test]
fn numbers_that_no_scale_covers() {
    check_kept("nan_weights", "matmul_y0", "NaN or infinity");
    check_kept("nan_weights", "matmul_y1", "NaN or infinity");
    check_kept("all_zero_weights", "matmul_y1", "all zero");
    check_kept("huge_range_weights", "matmul_y0", "all zero, or next to it");
    for (name, changed) in [("nan_weights", 1), ("all_zero_weights", 2), ("huge_range_weights", 3)]
    {
        for case in both(name) {
            assert_eq!(
                case.layers().iter().filter(|l| l.scheme != "keep").count(),
                changed,
                "{name}"
            );
        }
    }
}

#[test]
fn weights_in_functions() {
    for case in both("functions") {
        let layers = case.layers();
        assert_eq!(
            layers.iter().filter(|layer| layer.scheme == case.scheme).count(),
            4,
            "{layers:?}"
        );
        check_smaller(case);
    }
}

#[test]
fn values_that_are_no_tensors() {
    for name in ["string_tensors", "sequence_ops", "optional_ops"] {
        check_quantized(name, 1);
    }
}

#[test]
fn weights_beside_sparse_ones() {
    for case in both("sparse_initializer") {
        let expected = 1 + zero_points(case);
        assert_eq!(weights(&case.candidate)["int8"].0, expected, "{}", case.label());
        check_smaller(case);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn nodes_out_of_order() {
    check_quantized("unsorted_nodes", 2);
    for case in both("unsorted_nodes") {
        let answers =
            oracle::check_models(&[case.original.clone(), case.candidate.clone()]).unwrap();
        assert!(!answers[0].is_ok() && answers[1].is_ok(), "{}: {answers:?}", case.label());
    }
}

#[test]
fn weights_in_external_files() {
    check_quantized("external_data", 4);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_model_without_weights_is_passed_on() {
    for name in ["tree_ensemble", "sklearn_forest", "scalar_weights", "empty_inputs"] {
        check_untouched(name);
    }
    // With validation on as well; there is nothing to run for.
    let folder = tempdir();
    let arguments = args!["quantize", graph("tree_ensemble"), "-o", "same.onnx"];
    let output = run_in(folder.path(), arguments).expect(0);
    assert!(output.stderr.starts_with("warning: nothing to do"), "{}", output.stderr);
    check_same_model(&[(graph("tree_ensemble"), folder.path().join("same.onnx"))]);
}
