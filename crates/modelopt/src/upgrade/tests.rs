//! Upgrades from file to file.

use modelopt_graph::{DataType, OpsetImport, Origin};

use super::*;
use crate::error::ErrorKind;
use crate::testing::{Layer, network};

/// A network at an operator set, in a file of a folder that goes with the value.
fn file(opset: i64) -> (tempfile::TempDir, std::path::PathBuf) {
    let mut model = network(&[Layer::Even; 2]);
    for import in &mut model.info.opsets {
        import.version = opset;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, onnx::to_bytes(&model).unwrap()).unwrap();
    (folder, path)
}

fn run(input: &Path, output: &Path, opset: i64, how: Enforcement) -> Result<UpgradeOutcome, Error> {
    let config = Config { enforcement: how, ..Config::upgrading() };
    upgrade(input, output, Some(opset), &config, &Stop::default(), &mut |_| {})
}

#[test]
fn a_raised_model_is_run_and_written() {
    let (folder, input) = file(13);
    let output = folder.path().join("new.onnx");
    let outcome = run(&input, &output, 17, Enforcement::Gate).unwrap();
    assert!(outcome.emitted && !outcome.refused && outcome.upgraded.changed);
    assert!(outcome.compared.unwrap().verdict.pass);
    let model = onnx::load(&output).unwrap();
    assert_eq!(model.opset(model.main(), ""), Some(17));
}

#[test]
fn where_nothing_is_to_be_done_nothing_runs_and_a_copy_is_one_to_the_byte() {
    let (folder, input) = file(17);
    let output = folder.path().join("new.onnx");
    let outcome = run(&input, &output, 17, Enforcement::Gate).unwrap();
    assert!(outcome.emitted && outcome.compared.is_none() && !outcome.upgraded.changed);
    assert!(std::fs::read(&input).unwrap() == std::fs::read(&output).unwrap());
    assert!(!run(&input, &input, 17, Enforcement::Gate).unwrap().emitted);
}

#[test]
fn what_cannot_be_raised_leaves_the_target_alone() {
    let (folder, input) = file(17);
    let output = folder.path().join("new.onnx");
    let error = run(&input, &output, 13, Enforcement::None).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Upgrade(_)), "{error}");
    assert!(!output.exists());
}

#[test]
fn a_limit_that_nothing_meets_keeps_the_result_back() {
    let (folder, input) = file(13);
    let output = folder.path().join("new.onnx");
    let mut config = Config::upgrading();
    config.gate.min_shrink = Some(1000.0);
    let stop = Stop::default();
    let outcome = upgrade(&input, &output, Some(17), &config, &stop, &mut |_| {}).unwrap();
    assert!(outcome.refused && !outcome.emitted && !output.exists());
    config.enforcement = Enforcement::Judge;
    let outcome = upgrade(&input, &output, Some(17), &config, &stop, &mut |_| {}).unwrap();
    assert!(!outcome.refused && outcome.emitted);
    assert!(!outcome.compared.unwrap().verdict.pass);
}

#[test]
fn the_default_is_what_the_broadest_runtime_runs_and_never_older_than_the_model() {
    let newest = RuntimeKind::broadest().unwrap().newest_opset();
    let mut model = network(&[Layer::Even; 2]);
    assert_eq!(default_opset(&model), newest);
    let x = model.graph(model.main()).inputs[0].value;
    let y = model.add_value("drawn");
    let node = modelopt_graph::NewNode::onnx("draw".into(), "RoiAlign", &[x], y, Vec::new());
    model.insert(node, modelopt_graph::Place::Back(model.main()));
    assert_eq!(default_opset(&model), 21);
    let import = OpsetImport { domain: String::new(), version: newest + 1, origin: Origin::NONE };
    model.info.opsets = vec![import];
    assert_eq!(default_opset(&model), newest + 1);
    assert_eq!(model.value(x).elem(), Some(DataType::FLOAT));
}
