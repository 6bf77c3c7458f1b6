//! Values that must not be rounded to 16 bits: constants beyond the range, what may be made of
//! them, and numbers that count.

use std::collections::{HashMap, HashSet};

use modelopt_graph::{DataType, Model, NodeId, Tensor, ValueId};
use rayon::prelude::*;

use super::form::{Form, Kind, Slot, is_float};
use super::options::PrecisionOptions;
use super::rounding;
use super::unsafe_ops::EXPONENTS;
use crate::plan::Precision;

/// Values with the reason for which they stay float32.
pub(crate) type Unfit = HashMap<ValueId, String>;

/// What keeps the magnitude of its operands: through these a number that stands for infinity
/// reaches others.
const CARRYING: &[&str] = &[
    "Add",
    "Cast",
    "Concat",
    "Div",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Mul",
    "Neg",
    "Reshape",
    "Slice",
    "Squeeze",
    "Sub",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// What is computed from counts, element by element or by moving them.
const COUNTING: &[&str] = &[
    "Abs",
    "Add",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Cos",
    "Div",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Identity",
    "Log",
    "MatMul",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Pow",
    "Range",
    "Reciprocal",
    "Reshape",
    "Round",
    "Sin",
    "Slice",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Constants above this size are weights, not parts of a calculation with counts.
const SMALL: usize = 4096;

/// All values that must not be rounded. `nodes` are those that could be of 16 bits, in order.
pub(crate) fn unfit(
    model: &Model,
    nodes: &[(NodeId, Kind)],
    to: Precision,
    options: &PrecisionOptions,
) -> Unfit {
    let mut unfit = constants(model, nodes, to, options.min_rounding_sqnr_db);
    unfit.extend(options.unfit.clone());
    stand_ins(model, to, &mut unfit);
    if to == Precision::Fp16 {
        exponents(model, &mut unfit);
    }
    unfit
}

/// The constants that nodes would read in 16 bits, and that lose too much.
fn constants(model: &Model, nodes: &[(NodeId, Kind)], to: Precision, min_sqnr_db: f64) -> Unfit {
    let mut wanted: Vec<(ValueId, std::sync::Arc<Tensor>)> = Vec::new();
    let mut seen = HashSet::new();
    for (id, kind) in nodes {
        let Kind::Free(Form { inputs, .. }) = kind else { continue };
        for (value, slot) in model.node(*id).inputs().iter().zip(inputs) {
            if let (Some(value), Slot::Narrow) = (*value, slot)
                && seen.insert(value)
                && let Some(tensor) = model.constant(value)
            {
                wanted.push((value, tensor));
            }
        }
    }
    wanted
        .into_par_iter()
        .filter_map(|(value, tensor)| {
            let why = rounding::of_tensor(&tensor, to)?.objection(to, min_sqnr_db)?;
            Some((value, format!("'{}' {why}", model.value(value).name())))
        })
        .collect()
}

/// What single numbers beyond the range, which stand for infinity in masks, are added to or
/// multiplied with.
fn stand_ins(model: &Model, to: Precision, unfit: &mut Unfit) {
    let stands_in = |value: ValueId| {
        let tensor = model.constant(value)?;
        let number = (tensor.len() == 1 && tensor.dtype() == DataType::FLOAT)
            .then(|| tensor.to_f32().and_then(|numbers| numbers.first().copied()))??;
        (number.is_finite() && number.abs() > to.largest()).then_some(number)
    };
    let mut carriers: HashMap<ValueId, f32> = HashMap::new();
    for id in model.walk() {
        let node = model.node(id);
        if !CARRYING.contains(&node.op.name.as_str()) || !node.op.is_onnx() {
            continue;
        }
        let mut inputs = node.inputs().iter().flatten().copied();
        let divides = node.op.is("Div");
        let number = if divides {
            node.input(0).and_then(|v| carriers.get(&v).copied().or_else(|| stands_in(v)))
        } else {
            inputs.find_map(|v| carriers.get(&v).copied().or_else(|| stands_in(v)))
        };
        let Some(number) = number else { continue };
        for &output in node.outputs().iter().flatten() {
            if is_float(model, output) {
                carriers.insert(output, number);
                unfit.entry(output).or_insert_with(|| {
                    let name = model.value(output).name();
                    format!("'{name}' may be {number:.1e}, beyond {}", to.dtype())
                });
            }
        }
    }
}

/// Results with the range of exponents, and what they are summed up to:
///
/// ```text
/// Pow(x - mean, 2) ─▶ ReduceMean ─▶ Add(epsilon) ─▶ Sqrt
///                  32             32              32     └─ 16 from here on
/// ```
fn exponents(model: &Model, unfit: &mut Unfit) {
    const SUMMING: [&str; 9] =
        ["Add", "Cast", "Identity", "Mul", "ReduceMean", "ReduceSum", "Reshape", "Sub", "Squeeze"];
    let mut found: HashSet<ValueId> = HashSet::new();
    for id in model.walk() {
        let node = model.node(id);
        let op = node.op.name.as_str();
        if !node.op.is_onnx() {
            continue;
        }
        let floats: Vec<ValueId> =
            node.inputs().iter().flatten().copied().filter(|&v| is_float(model, v)).collect();
        let sums = SUMMING.contains(&op)
            && floats.iter().any(|value| found.contains(value))
            && floats.iter().all(|&v| found.contains(&v) || model.constant(v).is_some());
        if !sums && !EXPONENTS.contains(&op) {
            continue;
        }
        for &output in node.outputs().iter().flatten().filter(|&&v| is_float(model, v)) {
            found.insert(output);
            let name = model.value(output).name();
            unfit.entry(output).or_insert_with(|| format!("'{name}' has the range of exponents"));
        }
    }
}

/// The nodes that compute with counts alone: float32 numbers that come from integers of more than
/// eight bits, which 16-bit floats cannot tell apart.
pub(crate) fn counting(model: &Model) -> HashSet<NodeId> {
    const COUNTS: [DataType; 6] = [
        DataType::INT16,
        DataType::INT32,
        DataType::INT64,
        DataType::UINT16,
        DataType::UINT32,
        DataType::UINT64,
    ];
    let mut counts: HashSet<ValueId> = HashSet::new();
    let mut nodes = HashSet::new();
    for id in model.walk() {
        let node = model.node(id);
        if !COUNTING.contains(&node.op.name.as_str()) || !node.op.is_onnx() {
            continue;
        }
        let from_integers = node.op.is("Cast")
            && node
                .input(0)
                .and_then(|value| model.value(value).elem())
                .is_some_and(|elem| COUNTS.contains(&elem));
        let floats: Vec<ValueId> =
            node.inputs().iter().flatten().copied().filter(|&v| is_float(model, v)).collect();
        let is_small = |value| model.constant(value).is_some_and(|t| t.byte_len() < SMALL);
        let continues = floats.iter().any(|value| counts.contains(value))
            && floats.iter().all(|&value| counts.contains(&value) || is_small(value));
        if from_integers || continues || node.op.is("Range") {
            let outputs = node.outputs().iter().flatten().copied();
            let before = counts.len();
            counts.extend(outputs.filter(|&value| is_float(model, value)));
            if counts.len() > before {
                nodes.insert(id);
            }
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{Type, infer};

    use super::*;
    use crate::testing::{Build, float, noise};

    #[test]
    fn a_mask_with_the_lowest_float_reaches_what_it_is_added_to() {
        let mut b = Build::new(17);
        let mask = b.input("mask", float(&[1, 4]));
        let scores = b.input("scores", float(&[4, 4]));
        let lowest = b.weight("lowest", &[], &[f32::MIN]);
        let bias = b.node("Mul", &[mask, lowest], &[]);
        let sum = b.node("Add", &[scores, bias], &[]);
        let y = b.node("Softmax", &[sum], &[]);
        let clipped = b.node("Clip", &[scores, lowest], &[]);
        b.output(y, float(&[4, 4]));
        b.output(clipped, float(&[4, 4]));
        infer::infer(&mut b.model);
        let mut found = Unfit::new();
        stand_ins(&b.model, Precision::Fp16, &mut found);
        assert!(found.contains_key(&bias) && found.contains_key(&sum));
        assert!(!found.contains_key(&y) && !found.contains_key(&clipped));
        stand_ins(&b.model, Precision::Bf16, &mut Unfit::new());
    }

    #[test]
    fn positions_are_counted_until_they_meet_data() {
        let mut b = Build::new(17);
        let ids = b.input("ids", Type::tensor(DataType::INT64));
        let x = b.input("x", float(&[4, 64]));
        let positions = b.node("Cast", &[ids], &[("to", 1.into())]);
        let frequencies = b.weight("f", &[64], &noise(64, 1));
        let angles = b.node("Mul", &[positions, frequencies], &[]);
        let waves = b.node("Sin", &[angles], &[]);
        let turned = b.node("Mul", &[x, waves], &[]);
        let w = b.weight("W", &[64, 64], &noise(4096, 2));
        let features = b.node("MatMul", &[waves, w], &[]);
        b.output(turned, float(&[4, 64]));
        b.output(features, float(&[4, 64]));
        infer::infer(&mut b.model);
        let found = counting(&b.model);
        let made_by = |value| b.model.producer_node(value).unwrap();
        assert!([positions, angles, waves].iter().all(|&v| found.contains(&made_by(v))));
        assert!(![turned, features].iter().any(|&v| found.contains(&made_by(v))));
    }
}
