//! A model that takes and gives 16 bits where the original takes and gives float32, run on the
//! same samples.

use std::collections::HashSet;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Model, Tensor, Type};
use modelopt_rewrite::Precision;
use modelopt_runtime::worker::Remote;
use modelopt_runtime::{LeftOut, Outputs, RuntimeError, Sample, Session};

/// Which inputs and outputs of the candidate are of 16 bits that were float32.
#[derive(Clone, Debug)]
pub(crate) struct IoCast {
    to: DataType,
    inputs: HashSet<String>,
    outputs: HashSet<String>,
}

impl IoCast {
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
        IoCast { to: to.dtype(), inputs: floats(&main.inputs), outputs: floats(&main.outputs) }
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
    pub(crate) fn around<S: Session>(self, session: S) -> Cast<S> {
        Cast { session, casting: self }
    }

    /// The candidate as whoever calls it has it: what goes in is of its type before the clock
    /// starts, and what comes out is taken as it comes.
    pub(crate) fn called<'a>(
        &self,
        session: &'a mut dyn Session,
        inputs: &IndexMap<String, Tensor>,
    ) -> Called<'a> {
        let inputs = self.inputs(inputs);
        for tensor in inputs.values() {
            // Rounded now, rather than when a run looks at it.
            let _ = tensor.bytes();
        }
        Called { session, inputs }
    }
}

/// A model with inputs that are ready for it.
pub(crate) struct Called<'a> {
    session: &'a mut dyn Session,
    inputs: IndexMap<String, Tensor>,
}

impl Session for Called<'_> {
    /// Runs on its own inputs, whatever it is given.
    fn run(&mut self, _: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        self.session.run(&self.inputs)
    }

    fn remote<'s>(&'s mut self, _: &'s IndexMap<String, Tensor>) -> Option<Remote<'s>> {
        self.session.remote(&self.inputs)
    }
}

/// A model that takes and gives what another does.
pub(crate) struct Cast<S> {
    session: S,
    casting: IoCast,
}

impl<S: Session> Session for Cast<S> {
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
        let mut casting = IoCast::of(&model, Precision::Fp16);
        assert!(!casting.inputs.is_empty() && !casting.outputs.is_empty());
        casting.inputs = HashSet::from(["x".to_owned()]);
        casting.outputs = HashSet::from(["y".to_owned()]);
        let x = Tensor::of(vec![2], &[0.1f32, 2.0]).unwrap();
        let inputs = IndexMap::from([("x".to_owned(), x)]);
        let sample = Sample { name: "s".into(), kind: SampleKind::Real, inputs: inputs.clone() };
        assert_eq!(casting.samples(&[sample])[0].inputs["x"].dtype(), DataType::FLOAT16);
        let mut echo = Echo;
        let called = casting.called(&mut echo, &inputs).run(&IndexMap::new()).unwrap();
        assert_eq!(called["y"].dtype(), DataType::FLOAT16);
        let outputs = casting.around(Echo).run(&inputs).unwrap();
        let numbers = outputs["y"].elements::<f32>().unwrap().into_owned();
        assert_eq!(numbers, [half_of(0.1), 2.0]);
    }

    fn half_of(number: f32) -> f32 {
        let tensor = Tensor::of(vec![1], &[number]).unwrap().rounded(DataType::FLOAT16).unwrap();
        tensor.to_f32().unwrap()[0]
    }
}

#[cfg(test)]
mod edges;
