//! From a file to a model that answers.

use std::path::Path;

use modelopt_graph::Model;
use modelopt_runtime::{graph_inputs, load_samples};

use super::digest::digest;
use super::error::LoadError;
use super::model::{Identity, Placement, ServedModel};
use super::rows::Tensors;
use super::runtimes::Runtimes;
use super::settings::EngineSettings;
use super::warm_up::Samples;
use crate::Signature;

/// What tells the signature of a model, or why it has none.
pub type Describe = fn(&Model) -> Result<Signature, String>;

/// Loads models. All of it blocks.
#[derive(Debug)]
pub(crate) struct Loader {
    pub(crate) runtimes: Runtimes,
    pub(crate) settings: EngineSettings,
    pub(crate) describe: Describe,
}

impl Loader {
    /// A model that is warm and answers; none where it is the one of this digest.
    ///
    /// # Errors
    /// If it cannot be loaded or does not run on its samples.
    pub(crate) fn load(
        &self,
        name: &str,
        version: u64,
        path: &Path,
        known: Option<&str>,
    ) -> Result<Option<ServedModel>, LoadError> {
        let model = modelopt_onnx::load(path)?;
        let before = digest(path, &model)?;
        if known == Some(before.as_str()) {
            return Ok(None);
        }
        let settings = self.settings.of(name);
        let identity = Identity {
            name: name.to_owned(),
            version: version.to_string(),
            digest: before.clone(),
            signature: (self.describe)(&model).map_err(LoadError::Signature)?,
        };
        let runtime = self.runtimes.choose(settings.isolate)?;
        let placement = Placement { runtime, path: path.to_owned() };
        let given = settings.samples.as_deref().map(|from| samples(from, &model)).transpose()?;
        let samples = given.as_deref().map_or(Samples::Invented(&model), Samples::Given);
        let served = ServedModel::start(identity, placement, settings, samples)?;
        // What the runtime read has to be what the digest is of.
        if digest(path, &modelopt_onnx::load(path)?)? != before {
            return Err(LoadError::Changed);
        }
        Ok(Some(served))
    }
}

fn samples(from: &Path, model: &Model) -> Result<Vec<Tensors>, LoadError> {
    let inputs: Vec<String> = graph_inputs(model).into_iter().map(|input| input.name).collect();
    let samples =
        load_samples(from, &inputs).map_err(|error| LoadError::Samples(error.to_string()))?;
    Ok(samples.into_iter().map(|sample| sample.inputs).collect())
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{
        Attribute, AttributeValue, DataType, Dim, ModelInfo, NewNode, Operator, OpsetImport,
        Origin, Place, Type, ValueInfo,
    };
    use modelopt_onnx::{SaveOptions, Staged};
    use xtask::testdata::fixture;

    use super::super::model::Batching;
    use super::super::planted::{Planted, describe};
    use super::super::proof::Objection;
    use super::super::settings::ModelSettings;
    use super::*;

    fn loader(runtime: &str, settings: ModelSettings) -> Loader {
        let runtimes = Runtimes::open(runtime.parse().unwrap(), None, None).unwrap();
        let settings = EngineSettings { default: settings, ..EngineSettings::default() };
        Loader { runtimes, settings, describe }
    }

    #[test]
    fn a_real_model_is_proven_to_batch_in_every_embedded_runtime() {
        for runtime in ["tract", "rten"] {
            let loader = loader(runtime, ModelSettings::default());
            let path = fixture("digits/cnn.onnx");
            let served = loader.load("digits", 3, &path, None).unwrap().unwrap();
            let Batching::On(evidence) = served.batching() else {
                panic!("{:?}", served.batching())
            };
            assert_eq!((evidence.sizes, evidence.rows), (vec![2, 4, 8], 4));
            assert!(evidence.largest_difference < 1e-5, "{}", evidence.largest_difference);
            let identity = served.identity();
            assert_eq!((identity.version.as_str(), identity.digest.len()), ("3", 64));
            assert!(loader.load("digits", 3, &path, Some(&identity.digest)).unwrap().is_none());
        }
    }

    /// `y = x - mean(x)` over the rows of a batch of any size.
    fn mixing(path: &Path) {
        let opsets = vec![OpsetImport { domain: String::new(), version: 13, origin: Origin::NONE }];
        let mut model = Model::new(ModelInfo { ir_version: 7, opsets, ..ModelInfo::default() });
        let main = model.main();
        let [x, mean, y] = ["x", "mean", "y"].map(|name| model.add_value(name));
        let shape = Some(vec![Dim::Symbol("batch".to_owned()), Dim::Fixed(3)]);
        let ty = || Some(Type::Tensor { elem: DataType::FLOAT, shape: shape.clone() }.into());
        model.add_input(main, ValueInfo { value: x, ty: ty(), origin: Origin::NONE });
        let axes = AttributeValue::Ints(vec![0]);
        let axes = Attribute { name: "axes".to_owned(), value: axes, origin: Origin::NONE };
        let nodes =
            [("ReduceMean", vec![x], mean, vec![axes]), ("Sub", vec![x, mean], y, Vec::new())];
        for (op, inputs, output, attributes) in nodes {
            let node = NewNode {
                name: op.to_owned(),
                op: Operator::onnx(op),
                inputs: inputs.into_iter().map(Some).collect(),
                outputs: vec![Some(output)],
                attributes,
                origin: Origin::NONE,
            };
            model.insert(node, Place::Back(main));
        }
        model.add_output(main, ValueInfo { value: y, ty: ty(), origin: Origin::NONE });
        let staged = Staged::write(&model, path, SaveOptions::default()).unwrap();
        staged.commit().unwrap();
    }

    #[test]
    fn a_real_model_that_mixes_rows_is_found_out_in_every_embedded_runtime() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mixing.onnx");
        mixing(&path);
        for runtime in ["tract", "rten"] {
            let loader = loader(runtime, ModelSettings::default());
            let served = loader.load("m", 1, &path, None).unwrap().unwrap();
            let batching = served.batching();
            assert!(matches!(&batching, Batching::Off(Objection::Mixes { .. })), "{batching:?}");
        }
    }

    #[test]
    fn given_samples_are_read_and_must_run() {
        let mut settings = ModelSettings {
            samples: Some(fixture("digits/heldout.npz")),
            ..ModelSettings::default()
        };
        let path = fixture("digits/mlp.onnx");
        let served = loader("tract", settings.clone()).load("m", 1, &path, None).unwrap().unwrap();
        let Batching::On(evidence) = served.batching() else { panic!("{:?}", served.batching()) };
        assert_eq!(evidence.rows, 8);
        settings.samples = Some(fixture("digits").join("nowhere.npz"));
        let error = loader("tract", settings).load("m", 1, &path, None).unwrap_err();
        assert!(matches!(error, LoadError::Samples(_)), "{error}");
    }

    #[test]
    fn a_file_that_changes_while_it_is_loaded_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::copy(fixture("digits/mlp.onnx"), &path).unwrap();
        let other = fixture("digits/cnn.onnx");
        let target = path.clone();
        let planted = Planted::doubling().when_loading(move || {
            let fresh = target.with_extension("new");
            std::fs::copy(&other, &fresh).unwrap();
            std::fs::rename(&fresh, &target).unwrap();
        });
        let runtimes = Runtimes::inside(planted.runtime());
        let settings = EngineSettings::default();
        let loader = Loader { runtimes, settings, describe };
        let error = loader.load("m", 1, &path, None).unwrap_err();
        assert!(matches!(error, LoadError::Changed), "{error}");
    }

    #[test]
    fn a_model_without_a_signature_is_refused() {
        let runtimes = Runtimes::inside(Planted::doubling().runtime());
        let settings = EngineSettings::default();
        let describe: Describe = |_| Err("input 'x' is a sequence".to_owned());
        let loader = Loader { runtimes, settings, describe };
        let error = loader.load("m", 1, &fixture("digits/mlp.onnx"), None).unwrap_err();
        assert_eq!(error.to_string(), "input 'x' is a sequence");
    }
}
