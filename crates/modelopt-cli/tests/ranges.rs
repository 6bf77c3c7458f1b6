//! `int8-static` from file to file, in both formats: what becomes of small models of each kind, and their numbers
//! in onnxruntime, with its optimisations and without any, and in the embedded runtimes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use xtask::parallel::parallel;
use xtask::testdata::{fixture, npz_files, python};

use crate::support::{Output, finish, run_in, tempdir, with_onnxruntime};

/// Models whose layers compute on integers, with the operators of float that are left of them among operators
/// of integers.
const MODELS: [(&str, &[&str]); 15] = [
    ("captured", &["If", "Neg", "Abs", "Sub", "Greater", "ReduceMax"]),
    ("constants", &[]),
    ("cut_off", &[]),
    ("cut_off_opset10", &[]),
    ("groups", &[]),
    ("head", &[]),
    ("head_opset11", &[]),
    ("joined", &[]),
    ("movers", &[]),
    ("movers_opset12", &[]),
    ("products", &[]),
    ("residual", &[]),
    ("residual_opset12", &[]),
    ("shared", &[]),
    ("silu", &[]),
];

/// The least that is left of an output, in dB: seven layers in a row are the longest.
const FLOOR: f64 = 20.0;

/// Operators that move numbers, and what stands around integers.
const AROUND: &[&str] = &[
    "QuantizeLinear",
    "DequantizeLinear",
    "Identity",
    "MaxPool",
    "Transpose",
    "Reshape",
    "Slice",
    "Gather",
    "Unsqueeze",
    "Squeeze",
    "Split",
    "Expand",
    "Resize",
    "Flatten",
];

fn model(name: &str) -> PathBuf {
    fixture(format!("ranges/{name}.onnx"))
}

fn samples() -> PathBuf {
    fixture("ranges/samples")
}

fn quantize(folder: &Path, model: &Path, out: &str, more: &[&str]) -> Output {
    quantize_on(folder, (model, &samples()), out, more)
}

fn quantize_on(
    folder: &Path,
    (model, samples): (&Path, &Path),
    out: &str,
    more: &[&str],
) -> Output {
    let mut arguments = args!["quantize", model, "-o", out, "--samples", samples].to_vec();
    let usual = "--scheme int8-static --runtime onnxruntime --no-latency --no-gate --json \
        --min-weight-bytes 0";
    arguments.extend(usual.split_whitespace().map(OsString::from));
    arguments.extend(more.iter().map(OsString::from));
    finish(with_onnxruntime(folder).args(arguments))
}

/// What became of each model in each format, in one folder.
static MADE: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ranges");
    let _ = fs_err::remove_dir_all(&root);
    fs_err::create_dir_all(&root).unwrap();
    let formats = ["qdq", "qoperator"];
    let jobs: Vec<(&str, &str)> =
        MODELS.iter().flat_map(|(name, _)| formats.map(|format| (*name, format))).collect();
    parallel(&jobs, |(name, format)| {
        let out = format!("{name}.{format}.onnx");
        quantize(&root, &model(name), &out, &["--quant-format", format]).expect(0);
    });
    root
});

fn made(name: &str, format: &str) -> PathBuf {
    MADE.join(format!("{name}.{format}.onnx"))
}

/// What Python says of two models: the checker, the interface, operators, and numbers on all samples, with all
/// optimisations and with none; for two of integers, how far they are apart in steps of the output.
const LOOK: &str = r#"
import glob, json, sys
import numpy as np, onnx, onnxruntime as ort
ort.set_default_logger_severity(4)

def session(path, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options)

def interface(path):
    return [str(part) for part in (*path.graph.input, *path.graph.output)]

ALL, NONE = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL
feeds = [dict(np.load(path)) for path in sorted(glob.glob(sys.argv[1] + "/*.npz"))]
answers = {}
exact = {}
for line in sys.stdin:
    original, candidate, other = line.rstrip("\n").split("\t")
    before, after = onnx.load(original), onnx.load(candidate)
    onnx.checker.check_model(after, full_check=True)
    runs = {"exact": session(original, NONE), "all": session(candidate, ALL), "none": session(candidate, NONE)}
    if other:
        runs["other"] = session(other, ALL)
    made = {key: [run.run(None, feed)[0].astype(np.float64) for feed in feeds] for key, run in runs.items()}
    exact = made["exact"]
    step = (max(e.max() for e in exact) - min(e.min() for e in exact)) / 255
    def db(key):
        pairs = zip(exact, made[key])
        return min(10 * np.log10((e ** 2).sum() / max(((e - c) ** 2).sum(), 1e-30)) for e, c in pairs)
    def apart(key):
        return max(np.abs(a - b).max() for a, b in zip(made["all"], made[key])) / step
    ops = [node.op_type for node in after.graph.node]
    for node in after.graph.node:
        for attribute in node.attribute:
            ops += [inner.op_type for inner in attribute.g.node]
    answers[candidate] = {
        "same_interface": interface(before) == interface(after),
        "opsets": {o.domain: o.version for o in after.opset_import},
        "operators": ops, "all": db("all"), "none": db("none"),
        "levels_apart": apart("none"), "formats_apart": apart("other") if other else None,
    }
print(json.dumps(answers))
"#;

/// What Python says of all that was made, by file.
static LOOKS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let mut lines = String::new();
    for (name, _) in MODELS {
        let [original, qdq, qoperator] = [model(name), made(name, "qdq"), made(name, "qoperator")]
            .map(|p| p.display().to_string());
        lines += &format!("{original}\t{qdq}\t\n{original}\t{qoperator}\t{qdq}\n");
    }
    let list = MADE.join("list.txt");
    fs_err::write(&list, lines).unwrap();
    let mut command = Command::new("sh");
    let script = "exec \"$0\" -c \"$1\" \"$2\" < \"$3\"";
    command.arg("-c").arg(script).arg(python()).arg(LOOK).arg(samples()).arg(&list);
    serde_json::from_str(&finish(&mut command).expect(0).stdout).unwrap()
});

fn look(name: &str, format: &str) -> &'static Value {
    &LOOKS[made(name, format).to_str().unwrap()]
}

fn operators(look: &Value) -> Vec<&str> {
    look["operators"].as_array().unwrap().iter().map(|op| op.as_str().unwrap()).collect()
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn models_of_integers_are_sound_and_true_in_onnxruntime_at_every_level() {
    for (name, _) in MODELS {
        for format in ["qdq", "qoperator"] {
            let look = look(name, format);
            assert_eq!(look["same_interface"], true, "{name}, {format}");
            for level in ["all", "none"] {
                let found = look[level].as_f64().unwrap();
                assert!(found > FLOOR, "{name}, {format}, {level}: {found} dB");
            }
        }
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn both_formats_make_the_same_numbers() {
    for (name, _) in MODELS {
        let apart = |key: &str| look(name, "qoperator")[key].as_f64();
        // Operators of integers are what they are, whatever is optimised.
        let levels = apart("levels_apart").unwrap();
        assert!(levels < 1.01, "{name}: {levels} steps between levels");
        let formats = apart("formats_apart").unwrap();
        assert!(formats < 1.01, "{name}: {formats} steps between formats");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn layers_stand_between_what_quantizes_and_what_dequantizes() {
    for (name, _) in MODELS {
        let look = look(name, "qdq");
        let operators = operators(look);
        let count = |op: &str| operators.iter().filter(|&&other| other == op).count();
        assert!(count("QuantizeLinear") >= 2, "{name}: {operators:?}");
        assert!(count("DequantizeLinear") > count("QuantizeLinear"), "{name}: {operators:?}");
        assert_eq!(count("Relu") + count("Clip"), 0, "{name}: {operators:?}");
        // Scales by channel came with version 13.
        assert_eq!(look["opsets"], serde_json::json!({ "": 13 }), "{name}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn operators_of_integers_take_the_place_of_those_of_float() {
    for (name, left) in MODELS {
        let look = look(name, "qoperator");
        for op in operators(look) {
            let fits = op.starts_with("QLinear") || ["QGemm", "MatMulIntegerToFloat"].contains(&op);
            assert!(fits || AROUND.contains(&op) || left.contains(&op), "{name}: {op} is left");
        }
    }
    let opset = |name: &str, domain: &str| look(name, "qoperator")["opsets"][domain].as_i64();
    // The opset stays, and what ONNX itself has needs no other.
    assert_eq!(
        (opset("cut_off_opset10", ""), opset("cut_off_opset10", "com.microsoft")),
        (Some(10), None)
    );
    assert_eq!(
        (opset("residual_opset12", ""), opset("residual", "com.microsoft")),
        (Some(12), Some(1))
    );
    let movers = operators(look("movers", "qoperator"));
    let between = movers.iter().filter(|&&op| op == "QuantizeLinear" || op == "DequantizeLinear");
    assert_eq!(between.count(), 2, "only the ends are quantized and dequantized: {movers:?}");
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn embedded_runtimes_agree() {
    let names = MODELS.map(|(name, _)| name);
    let ran = parallel(&names, |name| {
        ["tract", "rten"].map(|runtime| {
            let folder = tempdir();
            let mut arguments = args!["compare", model(name), made(name, "qdq")].to_vec();
            arguments.extend(args!["--samples", samples(), "--runtime", runtime, "--no-latency"]);
            arguments.push("--json".into());
            let output = finish(with_onnxruntime(folder.path()).args(arguments));
            assert!(output.is_orderly(), "{name}, {runtime}: {}", output.stderr);
            let is_run = output.code == Some(0);
            assert!(is_run || output.code == Some(1), "{name}, {runtime}: {}", output.stdout);
            is_run
        })
    });
    for (name, ran) in names.iter().zip(ran) {
        assert!(ran.contains(&true), "{name} is run by no embedded runtime");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_cannot_be_integer_is_something_else() {
    let cases = [
        (model("in_branches"), 0),
        (model("cut_off_opset9"), 0),
        (fixture("graphs/already_quantized_qdq.onnx"), 0),
        (fixture("graphs/fp16_model.onnx"), 0),
        // One of three weights is of numbers.
        (fixture("graphs/nan_weights.onnx"), 1),
    ];
    parallel(&cases, |(path, expected)| {
        let folder = tempdir();
        let own = path.with_extension("npz");
        let samples = if own.exists() { own } else { samples() };
        let more = ["--quant-format", "qoperator"];
        let output = quantize_on(folder.path(), (path, &samples), "out.onnx", &more);
        let name = path.display();
        assert!(matches!(output.code, Some(0 | 3)), "{name}: {}", output.stderr);
        let document = output.json();
        let layers = document["plan"].as_array().unwrap().iter();
        let of_ranges = layers.filter(|layer| layer["scheme"] == "int8-static").count();
        assert_eq!(of_ranges, *expected, "{name}: {document}");
        let is_told = output.stdout.contains("the format of quantized operators decides nothing");
        assert_eq!(is_told, *expected == 0, "{name}: {document}");
    });
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn an_operator_set_that_is_to_be_kept_has_operators_of_integers_alone() {
    for (format, expected) in [("qdq", 0), ("qoperator", 3)] {
        let folder = tempdir();
        let more = ["--quant-format", format, "--keep-opset"];
        let output = quantize(folder.path(), &model("residual_opset12"), "out.onnx", &more);
        let document = output.expect(0).json();
        let layers = document["plan"].as_array().unwrap().iter();
        let of_ranges = layers.filter(|layer| layer["scheme"] == "int8-static").count();
        assert_eq!(of_ranges, expected, "{format}: {document}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_plan_of_integers_can_be_saved_and_carried_out_again() {
    let folder = tempdir();
    let with = ["--quant-format", "qoperator", "--save-plan", "plan.toml"];
    quantize(folder.path(), &model("silu"), "a.onnx", &with).expect(0);
    let plan = fs_err::read_to_string(folder.path().join("plan.toml")).unwrap();
    assert!(plan.contains("format = \"qoperator\"\n") && plan.contains("[[tensor]]"), "{plan}");
    let again = args!["quantize", model("silu"), "-o", "b.onnx", "--plan", "plan.toml"];
    let rest =
        args!["--samples", samples(), "--runtime", "onnxruntime", "--no-latency", "--no-gate"];
    finish(with_onnxruntime(folder.path()).args(again).args(rest)).expect(0);
    let bytes = |name: &str| fs_err::read(folder.path().join(name)).unwrap();
    assert!(bytes("a.onnx") == bytes("b.onnx"));
}

#[test]
fn a_format_of_what_is_not_there_is_refused() {
    let folder = tempdir();
    for (more, words) in [
        ("--scheme int8-weights --quant-format qoperator", ["int8-weights", "ranges"]),
        ("--plan plan.toml --quant-format qdq", ["--plan", "--quant-format"]),
        ("--quant-format onnx", ["qdq", "qoperator"]),
    ] {
        let mut arguments = args!["quantize", model("silu"), "-o", "o.onnx"].to_vec();
        arguments.extend(more.split(' ').map(OsString::from));
        let output = run_in(folder.path(), arguments).expect(2);
        assert!(words.iter().all(|word| output.stderr.contains(word)), "{more}: {}", output.stderr);
    }
}

#[test]
fn samples_lie_beside_the_models() {
    assert_eq!(npz_files(&samples()).len(), 6);
}
