//! The oracles must see what they are asked to see: each is shown one case to accept and
//! one to refuse.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use tempfile::TempDir;
use xtask::oracle::{self, Comparison, RunJob};
use xtask::{schema, setup, testdata};

/// A folder of models and samples that the Python code writes into its working directory.
fn made(code: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let prelude = "
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
def save(name, node, shape, initializers=(), opset=13):
    info = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], 'g', [info('x')], [info('y')], list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)])
    model.ir_version = 8
    open(name, 'wb').write(model.SerializeToString())
    return model
";
    let mut python = Command::new(testdata::python());
    python.arg("-c").arg(format!("{prelude}{code}")).current_dir(&folder);
    assert!(python.status().unwrap().success());
    folder
}

/// A length-delimited protobuf field.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint(number << 3 | 2);
    bytes.extend(varint(u32::try_from(content.len()).unwrap()));
    bytes.extend(content);
    bytes
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn relu() -> Vec<u8> {
    let folder = testdata::node_tests().into_iter().find(|path| path.ends_with("test_relu"));
    std::fs::read(folder.unwrap().join("model.onnx")).unwrap()
}

/// Compares two models given as the bytes of `test_relu` and something after them. Protobuf
/// merges a repeated submessage, so field 7 adds to the graph.
fn compare_with_appended(a: &[u8], b: &[u8]) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.onnx"), folder.path().join("b.onnx")];
    for (path, more) in paths.iter().zip([a, b]) {
        std::fs::write(path, [relu(), more.to_vec()].concat()).unwrap();
    }
    let [a, b] = paths;
    oracle::same_models(&[(a, b)]).unwrap().remove(0)
}

fn compare_files(folder: &Path, a: &str, b: &str) -> Comparison {
    oracle::same_models(&[(folder.join(a), folder.join(b))]).unwrap().remove(0)
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn every_test_model_is_equal_to_itself() {
    let pairs: Vec<_> =
        testdata::models().into_iter().map(|(_, path)| (path.clone(), path)).collect();
    for (answer, pair) in oracle::same_models(&pairs).unwrap().iter().zip(&pairs) {
        assert!(answer.equal, "{}: {:?}", pair.0.display(), answer.reason);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn an_unknown_field_counts_at_any_depth() {
    let (seven, eight) = (field(1007, b"seven"), field(1008, b"eight"));
    assert!(compare_with_appended(&seven, &seven).equal);
    for (a, b) in [(&[][..], &seven[..]), (&field(1007, b"other"), &seven), (&eight, &seven)] {
        let answer = compare_with_appended(a, b);
        assert!(!answer.equal);
        assert!(answer.reason.unwrap().starts_with("model: unknown field 100"));
    }
    let in_graph = compare_with_appended(&field(7, &seven), &field(7, &eight));
    assert_eq!(in_graph.reason.as_deref(), Some("model.graph: unknown field 1007 differs"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_order_of_unknown_fields_counts_only_within_one_number() {
    let (a, b, other) = (field(1007, b"a"), field(1007, b"b"), field(1008, b"other"));
    let join = |parts: &[&[u8]]| parts.concat();
    assert!(compare_with_appended(&join(&[&a, &other]), &join(&[&other, &a])).equal);
    assert!(!compare_with_appended(&join(&[&a, &b]), &join(&[&b, &a])).equal);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_order_of_nodes_counts() {
    let add = |name: &str| field(7, &field(1, &field(3, name.as_bytes())));
    let answer =
        compare_with_appended(&[add("p"), add("q")].concat(), &[add("q"), add("p")].concat());
    assert_eq!(answer.reason.as_deref(), Some("model.graph.node[1].name: 'p' against 'q'"));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn floats_are_compared_by_their_bits() {
    let folder = made(
        "
for name, value in [('nan', 'nan'), ('nan2', 'nan'), ('zero', '0.0'), ('minus', '-0.0')]:
    node = helper.make_node('LeakyRelu', ['x'], ['y'], alpha=float(value))
    save(name, node, [2])
",
    );
    assert!(compare_files(folder.path(), "nan", "nan2").equal);
    assert!(!compare_files(folder.path(), "zero", "minus").equal);
    assert!(!compare_files(folder.path(), "zero", "nan").equal);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn payloads_are_compared_wherever_they_lie() {
    let folder = made(
        "
node = helper.make_node('Add', ['x', 'w'], ['y'])
for name, last in [('inline', 3), ('changed', 4)]:
    weights = numpy_helper.from_array(np.array([1, 2, last], np.float32), 'w')
    model = save(name, node, [3], [weights])
    onnx.save(model, name + '.external', save_as_external_data=True, location=name + '.data',
              size_threshold=0)
",
    );
    let folder = folder.path();
    assert!(compare_files(folder, "inline", "inline.external").equal);
    assert!(!compare_files(folder, "inline", "changed").equal);
    let answer = compare_files(folder, "inline", "changed.external");
    assert!(answer.reason.unwrap().starts_with("model.graph.initializer[0].raw_data: "));
    std::fs::remove_file(folder.join("inline.data")).unwrap();
    assert!(!compare_files(folder, "inline", "inline.external").equal);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_checker_and_the_loader_refuse_broken_models() {
    let folder = made(
        "
save('good', helper.make_node('Relu', ['x'], ['y']), [2])
save('no_such_operator', helper.make_node('Rexu', ['x'], ['y']), [2])
save('dangling', helper.make_node('Relu', ['z'], ['y']), [2])
open('garbage', 'wb').write(b'garbage')
",
    );
    let names = ["good", "no_such_operator", "dangling", "garbage"];
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.path().join(name)).collect();
    let accepted = [true, false, false, false];
    let checked = oracle::check_models(&paths).unwrap();
    assert_eq!(checked.iter().map(oracle::Answer::is_ok).collect::<Vec<_>>(), accepted);
    let loaded = oracle::load_models(&paths).unwrap();
    assert_eq!(loaded.iter().map(oracle::Answer::is_ok).collect::<Vec<_>>(), accepted);
    assert!(loaded[1].error.as_deref().unwrap().contains("Rexu"));
}

/// One original and candidates of it, with two samples.
fn runs() -> (TempDir, Vec<PathBuf>) {
    let folder = made(
        "
save('original', helper.make_node('Relu', ['x'], ['y']), ['n', 2])
save('close', helper.make_node('LeakyRelu', ['x'], ['y'], alpha=0.1), ['n', 2])
save('other_names', helper.make_node('Relu', ['x'], ['y']), ['n', 2])
save('infinite', helper.make_node('Reciprocal', ['x'], ['y']), ['n', 2])
model = onnx.load('original')
model.graph.output[0].name = model.graph.node[0].output[0] = 'z'
onnx.save(model, 'other_names')
np.savez('a.npz', x=np.array([[3, 4], [1, 0]], np.float32), label=np.array([1, 1]))
np.savez('b.npz', x=np.array([[-1, 3], [4, -2]], np.float32), label=np.array([1, 0]))
",
    );
    let samples = vec![folder.path().join("a.npz"), folder.path().join("b.npz")];
    (folder, samples)
}

fn job(folder: &Path, candidate: &str, samples: &[PathBuf]) -> RunJob {
    RunJob {
        original: folder.join("original"),
        candidate: folder.join(candidate),
        samples: samples.to_vec(),
        time: false,
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_model_agrees_with_itself() {
    let (folder, samples) = runs();
    let same = RunJob { time: true, ..job(folder.path(), "original", &samples) };
    let result = oracle::run_models(&[same]).unwrap().remove(0);
    assert_eq!(result.error, None);
    let output = &result.outputs[0];
    assert_eq!(output.name, "y");
    assert!(output.equal && output.same_type && output.same_shape);
    assert!((output.sqnr_db - 999.0).abs() < 1e-9 && output.max_abs_error == Some(0.0));
    let top1 = output.top1.as_ref().unwrap();
    assert_eq!(top1.count, 4);
    assert!((top1.original - 0.75).abs() < 1e-9 && (top1.candidate - 0.75).abs() < 1e-9);
    let timing = result.timing.unwrap();
    assert!(timing.pairs >= 15 && timing.ratio > 0.0 && timing.original_ms > 0.0);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn parity_is_that_of_the_worst_sample() {
    let (folder, samples) = runs();
    let result = oracle::run_models(&[job(folder.path(), "close", &samples)]).unwrap().remove(0);
    let output = &result.outputs[0];
    assert!(!output.equal && output.same_type && output.same_shape);
    // The second sample: reference 0 3 4 0, error 0.1 0 0 0.2.
    let expected = 10.0 * (25.0f64 / 0.05).log10();
    assert!((result.worst_sqnr_db() - expected).abs() < 1e-4, "{}", output.sqnr_db);
    assert!((output.max_abs_error.unwrap() - 0.2).abs() < 1e-6);
    assert!(result.timing.is_none());
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn an_infinity_on_one_side_has_no_ratio() {
    let (folder, samples) = runs();
    let result = oracle::run_models(&[job(folder.path(), "infinite", &samples)]).unwrap();
    assert!((result[0].worst_sqnr_db() + 999.0).abs() < 1e-9);
    assert_eq!(result[0].outputs[0].max_abs_error, None);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn models_that_do_not_run_or_fit_are_errors() {
    let (folder, samples) = runs();
    let jobs = ["other_names", "absent"].map(|name| job(folder.path(), name, &samples));
    for result in oracle::run_models(&jobs).unwrap() {
        assert!(result.error.is_some() && result.outputs.is_empty());
        assert!((result.worst_sqnr_db() + 999.0).abs() < 1e-9);
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn every_test_model_has_samples_that_run() {
    let jobs: Vec<_> = testdata::models()
        .into_iter()
        .map(|(name, path)| {
            let first = |folder| testdata::npz_files(folder).into_iter().next().expect("a sample");
            let samples = vec![first(&testdata::samples(name)), first(&testdata::heldout(name))];
            RunJob { original: path.clone(), candidate: path, samples, time: false }
        })
        .collect();
    for (result, job) in oracle::run_models(&jobs).unwrap().iter().zip(&jobs) {
        assert_eq!(result.error, None, "{}", job.original.display());
        assert!(result.outputs.iter().all(|output| output.equal));
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn all_node_tests_are_there() {
    let cases = testdata::node_tests();
    assert_eq!(cases.len(), 1884);
    assert!(cases.iter().all(|case| case.join("test_data_set_0/output_0.pb").exists()));
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn set_up_does_nothing_the_second_time() {
    let written = || -> Vec<SystemTime> {
        let folders = testdata::models().into_iter().map(|(_, path)| path);
        let paths = folders.chain([testdata::node_tests().swap_remove(0)]);
        paths.map(|path| path.metadata().unwrap().modified().unwrap()).collect()
    };
    let before = written();
    setup::run().unwrap();
    assert_eq!(written(), before);
}

#[test]
fn the_operator_table_is_up_to_date() {
    schema::check().unwrap();
}
