//! Models before and after `int8-static`, for this crate's tests.

use std::collections::HashMap;

use modelopt_graph::{DataType, Model, Producer, Tensor, ValueId, infer, verify};

use super::interpreter::{Values, first_output, numbers, run};
use super::{Build, noise, options};
use crate::policy::ObservedTensor;
use crate::{Capabilities, ExplainedPlan, Numerics, Plan, PlanOptions, Scheme};

/// A runtime that fuses most operators.
pub(crate) const FUSING: Capabilities = Capabilities {
    runtime: Some("planted"),
    static_operators: &[
        "Conv",
        "MatMul",
        "Gemm",
        "Add",
        "Mul",
        "Concat",
        "Sigmoid",
        "LeakyRelu",
        "MaxPool",
        "GlobalAveragePool",
        "Relu",
        "Clip",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Slice",
        "Split",
        "Gather",
        "Expand",
        "Resize",
    ],
    ..Capabilities::ANYWHERE
};

/// A model, what it becomes, and what it is fed with.
pub(crate) struct Pair {
    pub(crate) before: Model,
    pub(crate) after: Model,
    pub(crate) plan: ExplainedPlan,
    pub(crate) feeds: Vec<Tensor>,
}

/// Numbers in -1..1 for each input of a model.
pub(crate) fn feeds(model: &Model) -> Vec<Tensor> {
    let inputs = model.graph(model.main()).inputs.iter();
    let feed = |(value, seed): (ValueId, u32)| {
        let ty = model.value(value).ty().unwrap();
        let shape: Vec<usize> =
            ty.shape().unwrap().iter().map(|dim| dim.fixed().unwrap()).collect();
        match ty.elem() {
            Some(DataType::BOOL) => Tensor::dense(DataType::BOOL, shape, vec![1]).unwrap(),
            _ => Tensor::of(shape.clone(), &noise(shape.iter().product(), seed)).unwrap(),
        }
    };
    inputs.map(|info| info.value).zip(31..).map(feed).collect()
}

/// What was seen of all tensors of a model.
pub(crate) fn observed(model: &Model, feeds: &[Tensor]) -> HashMap<String, ObservedTensor> {
    let of = |(value, tensor): (ValueId, Tensor)| {
        let seen = tensor.to_f32()?;
        let ends = |(low, high): (f32, f32), &x: &f32| (low.min(x), high.max(x));
        let (min, max) = seen.iter().fold((f32::INFINITY, f32::NEG_INFINITY), ends);
        let name = model.value(value).name().to_owned();
        Some((name, ObservedTensor { min, max, elements: seen.len() as u64 }))
    };
    run(model, feeds).into_iter().filter_map(of).collect()
}

/// The options of a plan by what was seen of a model.
pub(crate) fn calibrated(model: &Model) -> PlanOptions {
    let observed = observed(model, &feeds(model));
    PlanOptions { target: FUSING, observed, ..options(Scheme::INT8_STATIC) }
}

/// What becomes of a model by the default rules.
pub(crate) fn made(mut build: Build) -> Pair {
    infer::infer(&mut build.model);
    let options = calibrated(&build.model);
    let plan = crate::plan(&build.model, &options).unwrap();
    carried_out(build.model, plan)
}

/// What becomes of a model by a plan that is made of the one of the default rules.
pub(crate) fn made_with(mut build: Build, change: impl FnOnce(&mut Plan)) -> Pair {
    infer::infer(&mut build.model);
    let mut plan = crate::plan(&build.model, &calibrated(&build.model)).unwrap().into_plan();
    change(&mut plan);
    crate::settle(&build.model, &mut plan);
    let plan = crate::plan_from(&build.model, &plan).unwrap();
    carried_out(build.model, plan)
}

fn carried_out(before: Model, plan: ExplainedPlan) -> Pair {
    let mut after = before.clone();
    crate::apply(&mut after, &plan).unwrap();
    verify::check(&after).unwrap();
    let feeds = feeds(&before);
    assert_eq!(verify::interface(&after), verify::interface(&before));
    // Types are those that inference finds.
    let mut inferred = after.clone();
    infer::infer(&mut inferred);
    assert_eq!(verify::interface(&inferred), verify::interface(&before));
    Pair { before, after, plan, feeds }
}

impl Pair {
    /// A value of what it became, by name.
    pub(crate) fn value(&self, name: &str) -> ValueId {
        named(&self.after, name)
    }

    /// The first output as what makes it: see [`drawn`].
    pub(crate) fn drawn(&self) -> String {
        drawn(&self.after, self.after.graph(self.after.main()).outputs[0].value)
    }

    /// How far the first output is from what it was, in dB.
    pub(crate) fn sqnr(&self) -> f64 {
        let before = first_output(&self.before, &self.feeds);
        sqnr(&before, &first_output(&self.after, &self.feeds))
    }

    /// All values of what it became.
    pub(crate) fn values(&self) -> Values {
        run(&self.after, &self.feeds)
    }

    /// Scale and zero point of what quantizes to a value, or dequantizes it.
    pub(crate) fn affine(&self, value: ValueId) -> (f32, f32) {
        let node = self.after.node(self.after.producer_node(value).unwrap());
        assert!(node.op.is("DequantizeLinear") || node.op.is("QuantizeLinear"));
        let of = |place| numbers(&self.after.constant(node.input(place).unwrap()).unwrap())[0];
        (of(1), of(2))
    }

    /// Names of the tensors that have ranges.
    pub(crate) fn tensors(&self) -> Vec<&str> {
        self.plan.tensors.iter().map(|range| range.name.as_str()).collect()
    }
}

/// A value by name.
pub(crate) fn named(model: &Model, name: &str) -> ValueId {
    model.values().find(|&value| model.value(value).name() == name).unwrap()
}

/// Signal to noise, in dB.
pub(crate) fn sqnr(before: &Tensor, after: &Tensor) -> f64 {
    assert_eq!(before.shape(), after.shape());
    let power = |numbers: &mut dyn Iterator<Item = f32>| -> f64 {
        numbers.map(|x| f64::from(x).powi(2)).sum()
    };
    let (before, after) = (numbers(before), numbers(after));
    let noise = power(&mut before.iter().zip(&after).map(|(a, b)| a - b));
    10.0 * (power(&mut before.iter().copied()) / noise.max(1e-30)).log10()
}

/// A value as what makes it: `DQ(Q(Conv(DQ(Q(x)),i8,i32)))`. Constants are told by their type, those that are
/// dequantized by that of their integers; parameters are left out.
pub(crate) fn drawn(model: &Model, value: ValueId) -> String {
    if let Some(tensor) = model.constant(value) {
        return match tensor.dtype() {
            DataType::FLOAT => "c".to_owned(),
            DataType::INT8 => "i8".to_owned(),
            DataType::UINT8 => "u8".to_owned(),
            DataType::INT32 => "i32".to_owned(),
            other => format!("{other}"),
        };
    }
    let Producer::Node(id, _) = model.value(value).producer() else {
        return model.value(value).name().to_owned();
    };
    let node = model.node(id);
    let name = node.op.name.as_str();
    let shown = match name {
        "QuantizeLinear" | "DequantizeLinear" => 1,
        "Conv" | "Gemm" | "MatMul" | "Add" | "Mul" | "Concat" => node.inputs().len(),
        _ if name.starts_with('Q') => node.inputs().len(),
        _ => 1,
    };
    let is_parameter = |input: &ValueId| name.starts_with('Q') && model.constant(*input).is_some();
    let inputs = node.inputs().iter().take(shown).flatten().copied();
    let inputs: Vec<String> =
        inputs.filter(|input| !is_parameter(input)).map(|input| drawn(model, input)).collect();
    let inputs = inputs.join(",");
    match name {
        "DequantizeLinear" if model.constant(node.input(0).unwrap()).is_some() => inputs,
        "DequantizeLinear" if node.attribute("axis").is_some() => format!("DQchannels({inputs})"),
        "DequantizeLinear" => format!("DQ({inputs})"),
        "QuantizeLinear" => format!("Q({inputs})"),
        _ => format!("{name}({inputs})"),
    }
}

/// Weights of a convolution of a shape.
pub(crate) fn filters(b: &mut Build, shape: &[usize], seed: u32) -> ValueId {
    let count = shape.iter().product();
    b.weight(&format!("F{seed}"), shape, &noise(count, seed))
}

/// A convolution of `channels` to as many, of size 3 unless it is said to be 1, with a bias.
pub(crate) fn conv(b: &mut Build, x: ValueId, channels: usize, seed: u32) -> ValueId {
    let weight = filters(b, &[channels, channels, 3, 3], seed);
    let bias = b.weight(&format!("b{seed}"), &[channels], &noise(channels, seed + 100));
    b.node("Conv", &[x, weight, bias], &[("pads", vec![1i64, 1, 1, 1].into())])
}

/// Numerics of a plan with one scale for each weight.
pub(crate) fn per_tensor() -> Numerics {
    let granularity = crate::Granularity::PerTensor;
    Numerics { granularity, ..Numerics::default() }
}
