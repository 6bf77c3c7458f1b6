//! A model that takes and gives 16 bits where the original takes and gives float32, run on the
//! same samples.

use std::collections::HashSet;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Model, Tensor, Type};
use modelopt_rewrite::Precision;
use modelopt_runtime::{LeftOut, Outputs, RuntimeError, Sample, Session};

/// Which inputs and outputs of the candidate are of 16 bits that were float32.
#[derive(Clone, Debug)]
pub(crate) struct Casting {
    to: DataType,
    inputs: HashSet<String>,
    outputs: HashSet<String>,
}

impl Casting {
    /// What a model has in float32 outside.
    pub(crate) fn of(model: &Model, to: Precision) -> Self {
        let main = model.graph(model.main());
        let floats = |infos: &[modelopt_graph::ValueInfo]| {
            let is_float = |info: &&modelopt_graph::ValueInfo| {
                let ty = model.value(info.value).ty();
                ty.and_then(Type::elem) == Some(DataType::FLOAT)
            };
            let names = infos.iter().filter(is_float).map(|i| model.value(i.value).name());
            names.map(str::to_owned).collect()
        };
        Casting { to: to.dtype(), inputs: floats(&main.inputs), outputs: floats(&main.outputs) }
    }

    fn inputs(&self, inputs: &IndexMap<String, Tensor>) -> IndexMap<String, Tensor> {
        let cast = |(name, tensor): (&String, &Tensor)| {
            let rounded = self.inputs.contains(name).then(|| tensor.rounded(self.to)).flatten();
            (name.clone(), rounded.unwrap_or_else(|| tensor.clone()))
        };
        inputs.iter().map(cast).collect()
    }

    fn outputs(&self, outputs: Outputs) -> Outputs {
        let widen = |(name, tensor): (String, Tensor)| {
            let numbers = (self.outputs.contains(&name) && tensor.dtype() == self.to)
                .then(|| Tensor::of(tensor.shape().to_vec(), &tensor.to_f32()?).ok())
                .flatten();
            (name, numbers.unwrap_or(tensor))
        };
        outputs.into_iter().map(widen).collect()
    }

    /// Samples as the candidate takes them.
    pub(crate) fn samples(&self, samples: &[Sample]) -> Vec<Sample> {
        let cast =
            |sample: &Sample| Sample { inputs: self.inputs(&sample.inputs), ..sample.clone() };
        samples.iter().map(cast).collect()
    }

    /// The candidate as if it took and gave what the original does.
    pub(crate) fn around(self, session: Box<dyn Session>) -> Box<dyn Session> {
        Box::new(Cast { session, casting: self })
    }
}

struct Cast {
    session: Box<dyn Session>,
    casting: Casting,
}

impl Session for Cast {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        Ok(self.casting.outputs(self.session.run(&self.casting.inputs(inputs))?))
    }

    fn left_out(&self) -> &[LeftOut] {
        self.session.left_out()
    }
}

#[cfg(test)]
mod tests {
    use modelopt_runtime::SampleKind;
    use xtask::testdata::fixture;

    use super::*;

    /// Gives back what it was given.
    struct Echo;

    impl Session for Echo {
        fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
            let tensor = inputs["x"].clone();
            assert_eq!(tensor.dtype(), DataType::FLOAT16);
            Ok(Outputs::from([("y".to_owned(), tensor)]))
        }
    }

    #[test]
    fn the_candidate_takes_and_gives_what_the_original_does() {
        let model = modelopt_onnx::load(&fixture("graphs/matmul_batched.onnx")).unwrap();
        let mut casting = Casting::of(&model, Precision::Fp16);
        assert!(!casting.inputs.is_empty() && !casting.outputs.is_empty());
        casting.inputs = HashSet::from(["x".to_owned()]);
        casting.outputs = HashSet::from(["y".to_owned()]);
        let x = Tensor::of(vec![2], &[0.1f32, 2.0]).unwrap();
        let inputs = IndexMap::from([("x".to_owned(), x)]);
        let sample = Sample { name: "s".into(), kind: SampleKind::Real, inputs: inputs.clone() };
        assert_eq!(casting.samples(&[sample])[0].inputs["x"].dtype(), DataType::FLOAT16);
        let outputs = casting.around(Box::new(Echo)).run(&inputs).unwrap();
        let numbers = outputs["y"].elements::<f32>().unwrap().into_owned();
        assert_eq!(numbers, [half_of(0.1), 2.0]);
    }

    fn half_of(number: f32) -> f32 {
        let tensor = Tensor::of(vec![1], &[number]).unwrap().rounded(DataType::FLOAT16).unwrap();
        tensor.to_f32().unwrap()[0]
    }
}
