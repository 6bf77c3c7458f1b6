//! Inputs invented from what a model declares.
//!
//! Everything is integer arithmetic, or float arithmetic that IEEE 754 fixes to the last bit, on
//! xoshiro256++: the same seed gives the same samples on every platform. Each input has its own
//! stream, so that another input, or another count, does not change it.

mod bounds;
mod cache;
mod check;
mod constraints;
mod controls;
mod dims;
mod fill;
mod hints;
mod image;
mod input;
mod likely;
mod options;
mod proposals;
mod random;
mod solve;
mod words;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Model, Tensor, Type, ValueId, element_count};

use self::dims::Sizes;
use self::input::InputPlan;
use self::random::Random;
use self::words::Words;
use crate::interface::graph_inputs;
use crate::{InputSpec, Sample, SampleError, SampleKind, Uninvented};

pub use self::options::{InputValue, SynthesisOptions, parse_dim, parse_value};
pub use self::proposals::{Proposal, Proposals};

/// Most elements that one invented input has.
const MOST_ELEMENTS: usize = 1 << 28;

/// Invents `options.count` samples for a model.
///
/// Sizes that the model leaves open come from `options.dims` or from what their names and places
/// suggest: 1 for a batch, 32 for a sequence, 224 for height and width of an image, else 16. Values
/// come from `options.values`, or:
/// - inputs called `mask` are ones, booleans are true;
/// - integers that index a constant table (`Gather`, `OneHot`) stay inside it, also when they reach
///   it through ops that only move them, or inside a nested graph;
/// - a few integers that say how to compute are what they are compared with, a sampling rate, or 1;
/// - other integers are 0 or 1;
/// - pictures (rank 4 with 1, 3 or 4 channels) are smooth fields with a little noise, standardised;
///   8-bit ones span 0 to 255;
/// - other floats are normally distributed;
/// - texts are words that the model has in its vocabulary, or a few others.
///
/// # Errors
/// For inputs that are not tensors or have no rank, and for options that do not fit the model.
pub fn synthesize(model: &Model, options: &SynthesisOptions) -> Result<Vec<Sample>, SampleError> {
    let specs = graph_inputs(model);
    options::check_names(options, &specs)?;
    let plans = plan(model, &specs, options)?;
    let words = Words::of(model);
    (0..options.count)
        .map(|number| {
            let inputs = plans
                .iter()
                .map(|plan| Ok((plan.name.to_owned(), plan.tensor(options, number, &words)?)))
                .collect::<Result<IndexMap<_, _>, SampleError>>()?;
            let name = format!("synthetic-{number}");
            Ok(Sample { name, inputs, kind: SampleKind::Synthetic })
        })
        .collect()
}

fn plan<'a>(
    model: &Model,
    specs: &'a [InputSpec],
    options: &SynthesisOptions,
) -> Result<Vec<InputPlan<'a>>, SampleError> {
    let sizes = Sizes::choose(specs, &options.dims);
    specs
        .iter()
        .map(|spec| {
            let Type::Tensor { elem, shape } = &spec.ty else {
                return Err(SampleError::needs_sample(
                    &spec.name,
                    Uninvented::OfType(spec.ty.to_string()),
                ));
            };
            let Some(dims) = shape else {
                return Err(SampleError::needs_sample(&spec.name, Uninvented::NoRank));
            };
            let shape = sizes.shape(&spec.name, dims);
            if element_count(&shape).is_none_or(|count| count > MOST_ELEMENTS) {
                return Err(SampleError::needs_sample(&spec.name, Uninvented::TooLarge(shape)));
            }
            let value = value_named(model, &spec.name);
            let bound = value.and_then(|value| bounds::index_bound(model, value));
            let values = value.map(|value| controls::values(model, value, *elem, &shape));
            let control = values.and_then(|values| values.into_iter().next());
            Ok(InputPlan { name: &spec.name, dtype: *elem, shape, bound, control })
        })
        .collect()
}

fn value_named(model: &Model, name: &str) -> Option<ValueId> {
    let inputs = &model.graph(model.main()).inputs;
    inputs.iter().map(|info| info.value).find(|&value| model.value(value).name() == name)
}

impl InputPlan<'_> {
    fn tensor(
        &self,
        options: &SynthesisOptions,
        number: usize,
        words: &Words,
    ) -> Result<Tensor, SampleError> {
        if let Some(value) = options.values.get(self.name) {
            return value.tensor(self.name, self.dtype, &self.shape);
        }
        let mut random = Random::new(options.seed, self.name, number);
        if self.dtype == DataType::STRING {
            return words.fill(self, &mut random);
        }
        fill::fill(self, &mut random)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use modelopt_graph::{Constant, Dim, ModelInfo, NewNode, Operator, Origin, Place, ValueInfo};

    use super::*;

    fn model(inputs: &[(&str, DataType, &[Dim])]) -> Model {
        let mut model = Model::new(ModelInfo { ir_version: 8, ..ModelInfo::default() });
        for &(name, elem, dims) in inputs {
            let value = model.add_value(name);
            let ty = Some(Type::Tensor { elem, shape: Some(dims.to_vec()) }.into());
            model.add_input(model.main(), ValueInfo { value, ty, origin: Origin::NONE });
        }
        model
    }

    fn symbol(name: &str) -> Dim {
        Dim::Symbol(name.to_owned())
    }

    #[test]
    fn a_text_model_gets_indices_inside_its_table() {
        let dims = [symbol("batch"), symbol("sequence")];
        let mut model =
            model(&[("ids", DataType::INT64, &dims), ("attention_mask", DataType::INT64, &dims)]);
        let ids = value_named(&model, "ids").unwrap();
        let [table, y] = ["table", "y"].map(|name| model.add_value(name));
        let rows = Arc::new(Tensor::of(vec![5, 1], &[0f32; 5]).unwrap());
        model.set_constant(model.main(), table, Constant::Dense(rows));
        let gather = NewNode {
            name: String::new(),
            op: Operator::onnx("Gather"),
            inputs: vec![Some(table), Some(ids)],
            outputs: vec![Some(y)],
            attributes: vec![],
            origin: Origin::NONE,
        };
        model.insert(gather, Place::Back(model.main()));
        let samples = synthesize(&model, &SynthesisOptions::default()).unwrap();
        assert_eq!(samples.len(), 4);
        let values: Vec<i64> =
            samples.iter().flat_map(|sample| sample.inputs["ids"].to_i64().unwrap()).collect();
        assert_eq!(values.len(), 4 * 32);
        assert!((0..5).all(|row| values.contains(&row)));
        assert!(values.iter().all(|value| (0..5).contains(value)));
        assert!(samples[0].inputs["attention_mask"].to_i64().unwrap().iter().all(|&x| x == 1));
    }

    #[test]
    fn the_same_seed_gives_the_same_samples() {
        let model = model(&[("x", DataType::FLOAT, &[Dim::Fixed(2), Dim::Fixed(3)])]);
        let bytes = |seed, count| {
            let options = SynthesisOptions { seed, count, ..SynthesisOptions::default() };
            let samples = synthesize(&model, &options).unwrap();
            samples[0].inputs["x"].elements::<f32>().unwrap().into_owned()
        };
        assert_eq!(bytes(0, 1), bytes(0, 3));
        assert_ne!(bytes(0, 1), bytes(1, 1));
        // Held here so that a change of generator is noticed: reports quote seeds.
        assert_eq!(bytes(0, 1)[..2], PINNED);
    }

    const PINNED: [f32; 2] = [-1.176_528_9, 0.251_922_6];

    #[test]
    fn options_must_fit_the_model() {
        let model = model(&[("x", DataType::FLOAT, &[symbol("n"), Dim::Fixed(3)])]);
        let mut options = SynthesisOptions::default();
        options.dims.extend([parse_dim("n=2").unwrap()]);
        options.values.extend([parse_value("x=0.5").unwrap()]);
        let samples = synthesize(&model, &options).unwrap();
        let x = &samples[0].inputs["x"];
        assert_eq!((x.shape(), &*x.to_f32().unwrap()), (&[2, 3][..], &[0.5; 6][..]));
        options.values.extend([parse_value("y=1").unwrap()]);
        let error = synthesize(&model, &options).unwrap_err().to_string();
        assert_eq!(error, "'y': the model has no such input; it has 'x'");
    }

    #[test]
    fn what_cannot_be_invented_is_said_so() {
        let complex = model(&[("z", DataType::COMPLEX64, &[Dim::Fixed(1)])]);
        let error = synthesize(&complex, &SynthesisOptions::default()).unwrap_err().to_string();
        assert_eq!(error, "cannot invent values for input 'z' (it is complex64)");
        let huge = model(&[("x", DataType::FLOAT, &[Dim::Fixed(usize::MAX), Dim::Fixed(2)])]);
        assert!(synthesize(&huge, &SynthesisOptions::default()).is_err());
    }
}
