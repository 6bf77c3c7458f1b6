//! What should stay float32 although an operator has a 16-bit form: sums that pile up errors,
//! results with the range of exponents, coordinates.

use modelopt_graph::{Dim, Model, NodeId, Type};

use super::options::PrecisionOptions;
use crate::plan::Precision;

/// Sums over more elements than this stay float32. A runtime that adds up in float16, one number
/// after the other, is off by up to half a unit in the last place (2^-11) each time: 3 % here.
const LONGEST_SUM: usize = 64;

/// Operators by the reason for which they stay float32.
const BY_NATURE: &[(&str, &[&str])] = &[
    ("errors of a running sum add up", &["CumSum", "CumProd"]),
    ("a remainder depends on every digit", &["Mod"]),
    ("a determinant cancels most of what it adds", &["Det"]),
    ("a transform adds up a whole signal", &["DFT", "STFT", "MelWeightMatrix"]),
    ("its window is made once", &["BlackmanWindow", "HammingWindow", "HannWindow"]),
    ("it counts, and must not miss a step", &["Range"]),
    (
        "coordinates need their fractions",
        &["AffineGrid", "DeformConv", "MaxRoiPool", "NonMaxSuppression", "RoiAlign"],
    ),
    ("it is defined by a function that computes in float32", &["MeanVarianceNormalization"]),
    ("a loss adds up a whole batch", &["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"]),
];

/// Operators whose results have the range of exponents, which float16 does not.
pub(super) const EXPONENTS: &[&str] =
    &["Exp", "Pow", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare"];

/// Operators that sum over some axes of their first input.
const SUMS: &[&str] = &[
    "GlobalAveragePool",
    "GlobalLpPool",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
];

/// Operators that compute statistics of their input.
const STATISTICS: &[&str] = &[
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LogSoftmax",
    "LpNormalization",
    "LRN",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "Softmax",
];

/// Why a node should stay float32, if it should.
pub(super) fn objection(
    model: &Model,
    id: NodeId,
    to: Precision,
    options: &PrecisionOptions,
) -> Option<String> {
    let op = model.node(id).op.name.as_str();
    if let Some((reason, _)) = BY_NATURE.iter().find(|(_, ops)| ops.contains(&op)) {
        return Some((*reason).to_owned());
    }
    if to == Precision::Fp16 && EXPONENTS.contains(&op) {
        return Some("its results have the range of exponents".to_owned());
    }
    if options.float32_statistics && STATISTICS.contains(&op) {
        return Some("statistics stay float32, as asked".to_owned());
    }
    if op.starts_with("Scatter") && model.node(id).string("reduction").is_some_and(|r| r != "none")
    {
        return Some("it adds up a number of updates that is not known".to_owned());
    }
    if SUMS.contains(&op) {
        return match summed(model, id) {
            Some(count) if count <= LONGEST_SUM => None,
            Some(count) => Some(format!("a sum over {count} numbers")),
            None => Some("a sum over a number of elements that is not known".to_owned()),
        };
    }
    None
}

/// How many elements go into each sum.
fn summed(model: &Model, id: NodeId) -> Option<usize> {
    let node = model.node(id);
    let shape = model.value(node.input(0)?).ty().and_then(Type::shape)?;
    let rank = shape.len();
    let axes: Option<Vec<i64>> = match node.input(1) {
        Some(axes) => Some(model.constant(axes)?.to_i64()?),
        None => node.ints("axes").map(<[i64]>::to_vec),
    };
    let axes: Vec<usize> = if node.op.name.starts_with("Global") {
        (2..rank).collect()
    } else {
        match axes {
            None if node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
            Some(axes) if axes.is_empty() && node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
            None => (0..rank).collect(),
            Some(axes) if axes.is_empty() => (0..rank).collect(),
            Some(axes) => axes
                .into_iter()
                .map(|axis| usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok())
                .collect::<Option<_>>()?,
        }
    };
    axes.into_iter().try_fold(1usize, |product, axis| {
        product.checked_mul(shape.get(axis).and_then(Dim::fixed)?)
    })
}

#[cfg(test)]
mod tests {
    use modelopt_graph::infer;

    use super::*;
    use crate::testing::{Build, float};

    fn reason(
        op: &str,
        shape: &[usize],
        axes: Option<Vec<i64>>,
        statistics: bool,
    ) -> Option<String> {
        let mut b = Build::new(13);
        let x = b.input("x", float(shape));
        let attributes: Vec<_> = axes.into_iter().map(|axes| ("axes", axes.into())).collect();
        let y = b.node(op, &[x], &attributes);
        b.output(y, float(shape));
        infer::infer(&mut b.model);
        let options = PrecisionOptions { float32_statistics: statistics, ..Default::default() };
        objection(&b.model, b.model.producer_node(y).unwrap(), Precision::Fp16, &options)
    }

    #[test]
    fn the_length_of_a_sum_decides() {
        assert_eq!(reason("ReduceMean", &[8, 64], Some(vec![-1]), false), None);
        assert!(reason("ReduceMean", &[8, 65], Some(vec![1]), false).unwrap().contains("65"));
        assert!(reason("ReduceMean", &[8, 64], None, false).unwrap().contains("512"));
        assert_eq!(reason("GlobalAveragePool", &[4096, 4096, 7, 7], None, false), None);
        assert!(reason("GlobalAveragePool", &[1, 1, 40, 40], None, false).is_some());
    }

    #[test]
    fn statistics_stay_only_where_that_is_asked_for() {
        assert_eq!(reason("Softmax", &[4, 4], None, false), None);
        assert!(reason("Softmax", &[4, 4], None, true).is_some());
        assert!(reason("Exp", &[4, 4], None, false).is_some());
    }
}
