//! Weights in an external file: the same model, in a form that runtimes can map.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use modelopt_graph::{
    Attribute, Constant, DataType, Model, ModelInfo, NewNode, Operator, OpsetImport, Origin, Place,
    Tensor, Type, ValueId, ValueInfo,
};
use modelopt_onnx::{SaveOptions, Staged, load};
use xtask::{oracle, testdata};

const EXTERNAL: SaveOptions = SaveOptions { external_data: true };

fn save(model: &Model, target: &Path, options: SaveOptions) {
    Staged::write(model, target, options).unwrap().commit().unwrap();
}

/// The files of a folder that end in `.data`, sorted.
fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "data"));
    files.sort();
    files
}

/// A model of one node that reads these weights.
fn model(weights: &[Arc<Tensor>], attributes: Vec<Attribute>) -> Model {
    let opset = OpsetImport { domain: String::new(), version: 17, origin: Origin::NONE };
    let info = ModelInfo { ir_version: 8, opsets: vec![opset], ..ModelInfo::default() };
    let mut model = Model::new(info);
    let main = model.main();
    let y = model.add_value("y");
    let inputs: Vec<Option<ValueId>> = weights
        .iter()
        .enumerate()
        .map(|(index, weight)| {
            let value = model.add_value(format!("w{index}"));
            model.set_constant(main, value, Constant::Dense(weight.clone()));
            Some(value)
        })
        .collect();
    let node = NewNode {
        name: "node".into(),
        op: Operator::onnx("Sum"),
        inputs,
        outputs: vec![Some(y)],
        attributes,
        origin: Origin::NONE,
    };
    model.insert(node, Place::Back(main));
    let ty = Some(Type::tensor(DataType::UINT8).into());
    model.add_output(main, ValueInfo { value: y, ty, origin: Origin::NONE });
    model
}

fn weight(bytes: impl Into<Bytes>) -> Arc<Tensor> {
    let bytes = bytes.into();
    Arc::new(Tensor::dense(DataType::UINT8, vec![bytes.len()], bytes).unwrap())
}

/// The weights of [`model`], in order.
fn weights(model: &Model) -> Vec<Arc<Tensor>> {
    let weights = model.initializers_of(model.main()).iter();
    weights.map(|&value| model.constant(value).unwrap()).collect()
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn the_same_model_comes_back_and_runtimes_load_it() {
    let folder = tempfile::tempdir().unwrap();
    let graphs = ["attention_small", "if_branches", "embedding_tied", "external_data"];
    let mut models: Vec<PathBuf> =
        graphs.iter().map(|name| testdata::fixture(format!("graphs/{name}.onnx"))).collect();
    models.push(testdata::model("magika"));
    let (mut pairs, mut copies) = (Vec::new(), Vec::new());
    for (index, model) in models.iter().enumerate() {
        let folder = folder.path().join(index.to_string());
        fs::create_dir(&folder).unwrap();
        let copy = folder.join("copy.onnx");
        let loaded = load(model).unwrap();
        let staged = Staged::write(&loaded, &copy, EXTERNAL).unwrap();
        let size = staged.size();
        staged.commit().unwrap();
        let [data] = &data_files(&folder)[..] else {
            panic!("{}: not one file of data", model.display())
        };
        let sizes = [&copy, data].map(|path| fs::metadata(path).unwrap().len());
        assert_eq!(size, sizes[0] + sizes[1]);
        copies.push(copy.clone());
        pairs.push((model.clone(), copy));
    }
    for answer in oracle::same_models(&pairs).unwrap() {
        assert!(answer.equal, "{answer:?}");
    }
    for answer in oracle::load_models(&copies).unwrap() {
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[test]
fn large_weights_lie_on_pages_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    let sizes = [5000, 1024, 1023, 4096, 1, 8193];
    let made: Vec<_> = (1..).zip(sizes).map(|(fill, size)| weight(vec![fill; size])).collect();
    save(&model(&made, Vec::new()), &target, EXTERNAL);
    let [data] = &data_files(folder.path())[..] else { panic!("not one file of data") };
    assert_eq!(fs::metadata(data).unwrap().len(), 2 * 4096 + 4096 + 4096 + 8193);
    let loaded = weights(&load(&target).unwrap());
    assert_eq!(loaded, made);
    for weight in loaded.iter().filter(|weight| weight.len() >= 1024) {
        assert_eq!(weight.bytes().unwrap().as_ptr() as usize % 4096, 0);
    }
}

#[test]
fn the_name_says_what_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    let of = |fill: u8| model(&[weight(vec![fill; 4096])], Vec::new());
    let name_of = |fill| {
        save(&of(fill), &target, EXTERNAL);
        let [data] = &data_files(folder.path())[..] else { panic!("not one file of data") };
        data.file_name().unwrap().to_str().unwrap().to_owned()
    };
    let (one, two, again) = (name_of(1), name_of(2), name_of(1));
    assert_eq!(one, again);
    assert_ne!(one, two);
    let digest = one.strip_prefix("m.onnx.").and_then(|rest| rest.strip_suffix(".data")).unwrap();
    assert!(digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn data_goes_when_its_model_goes() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    let (one, two) = (weight(vec![1; 4096]), weight(vec![2; 4096]));
    let others = ["n.onnx.0123456789abcdef.data", "m.onnx.data", "m.onnx.mine.data"];
    for name in others {
        fs::write(folder.path().join(name), "").unwrap();
    }
    save(&model(std::slice::from_ref(&one), Vec::new()), &target, EXTERNAL);
    let first = data_files(folder.path());
    assert_eq!(first.len(), others.len() + 1);
    save(&model(&[two], Vec::new()), &target, EXTERNAL);
    assert_eq!(data_files(folder.path()).len(), others.len() + 1);
    assert_ne!(data_files(folder.path()), first);
    save(&model(&[one], Vec::new()), &target, SaveOptions::default());
    assert_eq!(data_files(folder.path()).len(), others.len());
}

#[test]
fn data_that_was_damaged_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    let made = model(&[weight(vec![1; 4096])], Vec::new());
    save(&made, &target, EXTERNAL);
    for damage in [vec![], vec![7; 4096]] {
        fs::write(&data_files(folder.path())[0], damage).unwrap();
        save(&made, &target, EXTERNAL);
        assert_eq!(weights(&load(&target).unwrap()), weights(&made));
    }
}

#[test]
fn shared_weights_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    let shared = weight(vec![1; 8192]);
    let reshaped = Arc::new(shared.reshaped(vec![2, 4096]).unwrap());
    let made = [shared.clone(), shared, reshaped];
    save(&model(&made, Vec::new()), &target, EXTERNAL);
    assert_eq!(fs::metadata(&data_files(folder.path())[0]).unwrap().len(), 8192);
    assert_eq!(weights(&load(&target).unwrap()), made);
    // Saved again they are still one.
    save(&load(&target).unwrap(), &target, EXTERNAL);
    assert_eq!(fs::metadata(&data_files(folder.path())[0]).unwrap().len(), 8192);
}

#[test]
fn tensors_of_attributes_stay_in_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    let shared = weight(vec![1; 8192]);
    let attribute = Attribute::new("value", Tensor::clone(&shared));
    save(&model(&[shared], vec![attribute]), &target, EXTERNAL);
    assert!(fs::metadata(&target).unwrap().len() > 8192);
    assert!(fs::metadata(&target).unwrap().len() < 2 * 8192);
    assert!(!data_files(folder.path()).is_empty());
}

/// 560 MB of zeros, and the same one byte further on, and so on: different ranges, little memory.
fn four_large_ranges() -> Vec<Arc<Tensor>> {
    const LEN: usize = 560 << 20;
    let zeros = Bytes::from(vec![0; LEN + 3]);
    (0..4).map(|start| weight(zeros.slice(start..start + LEN))).collect()
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn beyond_two_gigabytes_weights_go_outside_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    let made = four_large_ranges();
    let staged = Staged::write(&model(&made, Vec::new()), &target, SaveOptions::default()).unwrap();
    assert!(staged.size() > 4 * (560 << 20));
    staged.commit().unwrap();
    assert!(fs::metadata(&target).unwrap().len() < 4096);
    let loaded = weights(&load(&target).unwrap());
    assert_eq!(loaded.len(), 4);
    for (loaded, made) in loaded.iter().zip(&made) {
        assert_eq!(loaded.shape(), made.shape());
        assert_eq!(loaded.byte_len(), made.byte_len());
    }
}

#[test]
fn what_cannot_go_outside_is_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    let attributes = four_large_ranges()
        .iter()
        .map(|tensor| Attribute::new("value", Tensor::clone(tensor)))
        .collect();
    let small = weight(vec![1; 4096]);
    let refused = Staged::write(&model(&[small], attributes), &target, SaveOptions::default());
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("more than the 2 GB"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
