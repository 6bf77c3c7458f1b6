//! Which adapter stands at which version of which operator, and why others need none.
//!
//! Every step of the schema table from version 8 on is one of three: it only allows more types, which
//! the table tells; it has an adapter; or it is listed as unchanged, with the reason.

use modelopt_graph::schema::{self, FormalOption, OpSchema, TypeRef, TypeStr};

use super::site::Adapter;
use super::{OLDEST, control, inputs, normalization, rename, resize, softmax};

/// An adapter, with the operator and the version it leads to, and what it does.
struct Entry {
    operators: &'static [&'static str],
    version: i64,
    adapter: Adapter,
    what: &'static str,
}

const fn entry(
    operators: &'static [&'static str],
    version: i64,
    adapter: Adapter,
    what: &'static str,
) -> Entry {
    Entry { operators, version, adapter, what }
}

const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
];

const ADAPTERS: &[Entry] = &[
    entry(
        &["BatchNormalization"],
        9,
        normalization::spatial,
        "statistics for each place are spelled out",
    ),
    entry(&["Scan"], 9, control::scan, "a second `Scan` around it goes over the batch"),
    entry(&["Upsample"], 9, inputs::upsample, "`scales` becomes an input"),
    entry(
        &["Dropout"],
        10,
        inputs::mask,
        "refused where the mask is read: nothing says what it holds",
    ),
    entry(&["Slice"], 10, inputs::slice, "`starts`, `ends` and `axes` become inputs"),
    entry(&["TopK"], 10, inputs::top_k, "`k` becomes an input"),
    entry(&["Upsample"], 10, resize::upsample, "becomes `Resize`"),
    entry(&["Clip"], 11, inputs::clip, "`min` and `max` become inputs"),
    entry(&["Pad"], 11, inputs::pad, "`pads` and `value` become inputs"),
    entry(
        &["Resize"],
        11,
        resize::coordinates,
        "asymmetric coordinates; `nearest` rounds down where axes grow and up where they shrink, in two \
         nodes where an axis may do either",
    ),
    entry(&["Scatter"], 11, rename::scatter, "becomes `ScatterElements`"),
    entry(
        &["Dropout"],
        12,
        inputs::dropout,
        "`ratio` becomes an input; refused where the mask is read",
    ),
    entry(
        &["Hardmax", "LogSoftmax", "Softmax"],
        13,
        softmax::along_one_axis,
        "between `Flatten` and `Reshape` where more than one axis takes part",
    ),
    entry(
        &["MeanVarianceNormalization"],
        13,
        normalization::mean_variance_axes,
        "`axes` that were left out are said: the checker's own reading of it does not know them",
    ),
    entry(&["ReduceSum", "Squeeze"], 13, inputs::axes, "`axes` becomes an input"),
    entry(&["Resize"], 13, resize::left_out, "empty `roi` and `scales` are left out"),
    entry(&["Split"], 13, inputs::split, "`split` becomes an input"),
    entry(&["Unsqueeze"], 13, inputs::unsqueeze, "`axes` becomes an input"),
    entry(
        &["BatchNormalization"],
        14,
        normalization::training,
        "training is an attribute; statistics of the batch must not be read",
    ),
    entry(&["RoiAlign"], 16, rename::roi_align, "coordinates stay `output_half_pixel`"),
    entry(REDUCTIONS, 18, inputs::axes, "`axes` becomes an input"),
    entry(&["Split"], 18, inputs::split_evenly, "parts of one size are counted by `num_outputs`"),
    entry(&["DFT"], 20, inputs::dft, "`axis` becomes an input, and stays 1 by default"),
    entry(&["GridSample"], 20, rename::grid_sample, "`bilinear` is `linear`, `bicubic` is `cubic`"),
    entry(
        &["GroupNormalization"],
        21,
        normalization::per_channel,
        "scale and bias are repeated for the channels of each group",
    ),
];

const NEW_ATTRIBUTE: &str = "what is new is off unless asked for";
const NEW_INPUT: &str = "what is new may be left out, and was before";
const MORE_WAYS: &str = "what had to be there may be left out or given in other ways";
const PER_TENSOR: &str = "`axis` means nothing for one scale, and there was no other";
const REFUSED: &str = "fewer types are allowed; a model with another is refused, by name";

/// Operators that change, but not what is written with the version before.
const UNCHANGED: &[(&[&str], i64, &str)] = &[
    (&["MaxPool"], 8, NEW_ATTRIBUTE),
    (&["AveragePool", "MaxPool"], 10, NEW_ATTRIBUTE),
    (&["Constant"], 11, MORE_WAYS),
    (
        &["ConvTranspose"],
        11,
        "the text on which side gets the odd pixel of `auto_pad` was turned around; runtimes do the same at \
         all versions",
    ),
    (&["DepthToSpace"], 11, "the mode by default is the one there was"),
    (&["Gemm", "Loop"], 11, MORE_WAYS),
    (
        &["OneHot"],
        11,
        "negative indices were out of range by the text; runtimes count them from the end at all versions",
    ),
    (&["TopK"], 11, "largest first is the default, as it was"),
    (&["ArgMax", "ArgMin", "GatherND"], 12, NEW_ATTRIBUTE),
    (&["Constant"], 12, MORE_WAYS),
    (&["DequantizeLinear", "QuantizeLinear"], 13, PER_TENSOR),
    (&["Erf"], 13, REFUSED),
    (&["GRU", "LSTM", "RNN", "Reshape"], 14, NEW_ATTRIBUTE),
    (&["Shape"], 15, NEW_ATTRIBUTE),
    (&["ScatterElements", "ScatterND"], 16, NEW_ATTRIBUTE),
    (&["LpPool", "Resize"], 18, NEW_ATTRIBUTE),
    (&["OptionalHasElement"], 18, MORE_WAYS),
    (&["Pad"], 18, NEW_INPUT),
    (&["AveragePool"], 19, NEW_ATTRIBUTE),
    (&["Cast", "CastLike", "QuantizeLinear"], 19, "it saturated before, and does by default"),
    (&["DequantizeLinear", "QuantizeLinear"], 21, NEW_ATTRIBUTE),
    (&["DequantizeLinear", "QuantizeLinear"], 23, NEW_ATTRIBUTE),
    (&["Attention"], 24, NEW_INPUT),
    (&["Cast", "CastLike"], 24, "it is for a type that came with it"),
    (&["Attention"], 25, NEW_ATTRIBUTE),
    (&["Range"], 27, "it is for types that came with it"),
    (&["ReduceLogSum", "ReduceLogSumExp"], 28, REFUSED),
    (&["SpaceToDepth"], 28, "the mode by default is the one there was"),
];

/// A version at which an operator changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// Operator.
    pub operator: &'static str,
    /// Version.
    pub version: i64,
    /// What that asks for.
    pub change: Change,
}

/// What an operator's new version asks of models with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Nothing: as far as the schema table tells, it takes what it took.
    Wider,
    /// Nothing, for this reason.
    Unchanged(&'static str),
    /// An adapter, which does this.
    Adapted(&'static str),
    /// The operator is withdrawn and has no adapter: models that have it are refused.
    Refused,
    /// It is not known.
    Open,
}

/// Every version at which an operator of `ai.onnx` changes, in the order of the schema table.
pub fn steps() -> impl Iterator<Item = Step> {
    let pairs = schema::all().windows(2).filter_map(|pair| match pair {
        [before, after] if before.name == after.name && before.domain == after.domain => {
            Some((before, after))
        }
        _ => None,
    });
    pairs.filter(|(_, after)| after.domain.is_empty() && after.since_version > OLDEST).map(
        |(before, after)| Step {
            operator: after.name,
            version: after.since_version,
            change: change(before, after),
        },
    )
}

fn change(before: &OpSchema, after: &OpSchema) -> Change {
    let version = after.since_version;
    if let Some(entry) = entry_of(after.name, version) {
        return Change::Adapted(entry.what);
    }
    let listed = |row: &&(&[&str], i64, &str)| row.0.contains(&after.name) && row.1 == version;
    match UNCHANGED.iter().find(listed) {
        Some((_, _, reason)) => Change::Unchanged(reason),
        None if after.deprecated => Change::Refused,
        None if only_wider(before, after) => Change::Wider,
        None => Change::Open,
    }
}

/// The adapter for an operator at a version, and the operator's name.
pub(super) fn adapter(operator: &str, version: i64) -> Option<(&'static str, Adapter)> {
    let entry = entry_of(operator, version)?;
    let name = entry.operators.iter().find(|name| **name == operator)?;
    Some((name, entry.adapter))
}

fn entry_of(operator: &str, version: i64) -> Option<&'static Entry> {
    ADAPTERS.iter().find(|entry| entry.version == version && entry.operators.contains(&operator))
}

/// Whether a version has the same inputs, outputs and attributes as the one before, of the same types
/// and more.
fn only_wider(before: &OpSchema, after: &OpSchema) -> bool {
    let attributes = |schema: &OpSchema| -> Vec<_> {
        schema.attributes.iter().map(|a| (a.name, a.kind, a.required)).collect()
    };
    let arity = |schema: &OpSchema| {
        [schema.min_inputs, schema.max_inputs, schema.min_outputs, schema.max_outputs]
    };
    let options = |schema: &OpSchema| -> Vec<FormalOption> {
        schema.inputs.iter().chain(&schema.outputs).map(|formal| formal.option).collect()
    };
    let types = |schema: &OpSchema| -> Vec<Vec<TypeStr>> {
        let formals = schema.inputs.iter().chain(&schema.outputs);
        formals.map(|formal| allowed(schema, formal.ty)).collect()
    };
    attributes(before) == attributes(after)
        && arity(before) == arity(after)
        && options(before) == options(after)
        && before.deprecated == after.deprecated
        && types(before)
            .iter()
            .zip(types(after))
            .all(|(older, newer)| older.iter().all(|ty| newer.contains(ty)))
}

fn allowed(schema: &OpSchema, ty: TypeRef) -> Vec<TypeStr> {
    match ty {
        TypeRef::Concrete(ty) => vec![ty],
        TypeRef::Variable(index) => {
            schema.type_variables.get(index).map_or_else(Vec::new, |v| v.allowed.to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_step_of_the_table_is_known() {
        let open: Vec<Step> = steps().filter(|step| step.change == Change::Open).collect();
        assert!(open.is_empty(), "{open:?}");
        assert!(steps().count() > 300);
    }

    #[test]
    fn what_is_listed_is_in_the_table_and_listed_once() {
        let all: BTreeSet<(&str, i64)> =
            steps().map(|step| (step.operator, step.version)).collect();
        let adapted = ADAPTERS
            .iter()
            .flat_map(|entry| entry.operators.iter().map(|operator| (*operator, entry.version)));
        let unchanged = UNCHANGED
            .iter()
            .flat_map(|(operators, version, _)| operators.iter().map(|o| (*o, *version)));
        let mut seen = BTreeSet::new();
        for listed in adapted.chain(unchanged) {
            assert!(all.contains(&listed), "{listed:?} is no step");
            assert!(seen.insert(listed), "{listed:?} is listed twice");
        }
    }

    /// Experimental operators of early versions, which ONNX Runtime still lists.
    #[test]
    fn what_is_withdrawn_without_an_adapter_is_listed() {
        let refused = steps().filter(|step| step.change == Change::Refused);
        let refused: Vec<&str> = refused.map(|step| step.operator).collect();
        let expected = "Affine Crop DynamicSlice GRUUnit GivenTensorFill ImageScaler \
                        ParametricSoftplus Scale ScaledTanh";
        assert_eq!(refused.join(" "), expected);
    }

    #[test]
    fn what_is_more_than_wider_is_told_from_it() {
        let change_of = |operator, version| {
            steps().find(|s| s.operator == operator && s.version == version).unwrap().change
        };
        assert_eq!(change_of("Relu", 13), Change::Wider);
        assert_eq!(change_of("TopK", 11), Change::Unchanged(UNCHANGED[7].2));
        assert!(matches!(change_of("Clip", 11), Change::Adapted(_)));
        let [before, after] = [6, 11].map(|version| schema::lookup("", "Clip", version).unwrap());
        assert!(!only_wider(before, after));
        assert!(!only_wider(
            schema::lookup("", "Erf", 9).unwrap(),
            schema::lookup("", "Erf", 13).unwrap()
        ));
    }
}
