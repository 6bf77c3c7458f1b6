//! Operators that belong to no family.

#![allow(clippy::unnecessary_wraps)] // A `Rule` may have no answer, even if this one has.

use super::contents::{self, Int};
use super::context::Context;
use super::dims;
use super::rule::{Rule, Shapes, one};
use crate::{AttributeValue, Dim, Shape};

pub(super) fn rule(op: &str) -> Option<Rule> {
    let rule: Rule = match op {
        "Constant" => constant,
        "Shape" => shape,
        "Size" | "SequenceLength" | "OptionalHasElement" => scalar,
        "ConstantOfShape" => constant_of_shape,
        "RandomNormal" | "RandomUniform" => random,
        "Multinomial" => multinomial,
        "Range" => range,
        "NonZero" => non_zero,
        "OneHot" => one_hot,
        "Unique" => unique,
        "NonMaxSuppression" => |_| one(vec![Dim::Unknown, Dim::Fixed(3)]),
        "NegativeLogLikelihoodLoss" | "SoftmaxCrossEntropyLoss" => loss,
        "BlackmanWindow" | "HammingWindow" | "HannWindow" => window,
        "MelWeightMatrix" => mel,
        "DFT" => dft,
        "STFT" => stft,
        "StringSplit" => string_split,
        "StringNormalizer" => |context| one(dims::unknown(context.shape(0)?.len())),
        "TfIdfVectorizer" => tf_idf,
        "ImageDecoder" => image,
        "Attention" => attention,
        "LinearAttention" => linear_attention,
        _ => return None,
    };
    Some(rule)
}

/// Rules of the domain `ai.onnx.preview`.
pub(super) fn preview_rule(op: &str) -> Option<Rule> {
    match op {
        "FlexAttention" => Some(flex_attention),
        _ => None,
    }
}

fn scalar(_: &Context<'_>) -> Option<Shapes> {
    one(Vec::new())
}

fn constant(context: &Context<'_>) -> Option<Shapes> {
    let fixed = |sizes: &[usize]| sizes.iter().map(|&size| Dim::Fixed(size)).collect();
    let list = |name: &str| match context.attribute(name)? {
        AttributeValue::Floats(list) => Some(list.len()),
        AttributeValue::Ints(list) => Some(list.len()),
        AttributeValue::Strings(list) => Some(list.len()),
        _ => None,
    };
    if let Some(AttributeValue::Tensor(tensor)) = context.attribute("value") {
        return one(fixed(tensor.shape()));
    }
    if let Some(AttributeValue::SparseTensor(tensor)) = context.attribute("sparse_value") {
        return one(fixed(&tensor.shape));
    }
    if ["value_float", "value_int", "value_string"].iter().any(|&n| context.attribute(n).is_some())
    {
        return one(Vec::new());
    }
    let count = ["value_floats", "value_ints", "value_strings"].into_iter().find_map(list)?;
    one(vec![Dim::Fixed(count)])
}

fn shape(context: &Context<'_>) -> Option<Shapes> {
    let Some(shape) = context.shape(0) else {
        return one(dims::unknown(1));
    };
    let (start, end) = contents::shape_range(context, shape.len());
    one(vec![Dim::Fixed(end - start)])
}

fn constant_of_shape(context: &Context<'_>) -> Option<Shapes> {
    one(context.contents(0)?.iter().map(Int::dim).collect())
}

fn random(context: &Context<'_>) -> Option<Shapes> {
    one(context.ints("shape")?.iter().map(|&size| dims::dim(size)).collect())
}

fn multinomial(context: &Context<'_>) -> Option<Shapes> {
    one(vec![context.dim(0, 0), dims::dim(context.int("sample_size", 1))])
}

fn range(context: &Context<'_>) -> Option<Shapes> {
    let ints = || {
        let at = |index| context.constant_int(index).map(i128::from);
        let (start, limit, delta) = (at(0)?, at(1)?, at(2)?);
        let length = limit - start;
        let (length, step) = if delta < 0 { (-length, -delta) } else { (length, delta) };
        if step == 0 {
            return None;
        }
        let count = if length <= 0 { 0 } else { (length - 1) / step + 1 };
        i64::try_from(count).ok().map(dims::dim)
    };
    let floats = || {
        let at = |index| match context.constant_floats(index)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        let (start, limit, delta) = (at(0)?, at(1)?, at(2)?);
        let wide = ((f64::from(limit) - f64::from(start)) / f64::from(delta)).ceil();
        let narrow = f64::from(((limit - start) / delta).ceil());
        // Runtimes differ in the precision of this, so it counts only where that is no matter.
        let agreed = wide.to_bits() == narrow.to_bits() && wide.abs() < 1e6;
        agreed.then_some(Dim::Fixed(wide.max(0.0) as usize))
    };
    let symbol = || match (context.contents(0)?.as_slice(), context.contents(1)?.as_slice()) {
        ([Int::Known(0)], [Int::Symbol(name)]) if context.constant_int(2) == Some(1) => {
            Some(Dim::Symbol(name.clone()))
        }
        _ => None,
    };
    one(vec![ints().or_else(symbol).or_else(floats).unwrap_or(Dim::Unknown)])
}

fn non_zero(context: &Context<'_>) -> Option<Shapes> {
    // Runtimes disagree on what a scalar gives.
    let rank = context.shape(0).map(Vec::len).filter(|rank| *rank > 0);
    one(vec![rank.map_or(Dim::Unknown, Dim::Fixed), Dim::Unknown])
}

fn one_hot(context: &Context<'_>) -> Option<Shapes> {
    let mut shape = context.shape(0)?.clone();
    let axis = dims::axis(context.int("axis", -1), shape.len() + 1)?;
    let depth = context.constant_int(1).or_else(|| match context.constant_floats(1)?.as_slice() {
        [depth] => Some(*depth as i64),
        _ => None,
    });
    shape.insert(axis, depth.map_or(Dim::Unknown, dims::dim));
    one(shape)
}

fn unique(context: &Context<'_>) -> Option<Shapes> {
    let list = || Some(vec![Dim::Unknown]);
    if context.attribute("axis").is_none() {
        let inverse = context.shape(0).map(|shape| vec![dims::product(shape)]).or_else(list);
        return Some(vec![list(), list(), inverse, list()]);
    }
    let picked = context.shape(0).and_then(|shape| {
        let mut shape = shape.clone();
        let axis = dims::axis(context.int("axis", 0), shape.len())?;
        let size = std::mem::replace(&mut shape[axis], Dim::Unknown);
        Some((shape, vec![size]))
    });
    let (shape, inverse) = picked.unzip();
    Some(vec![shape, list(), inverse.or_else(list), list()])
}

/// The second output of `SoftmaxCrossEntropyLoss` has the shape of the scores.
fn loss(context: &Context<'_>) -> Option<Shapes> {
    let loss = match context.string("reduction") {
        Some("none") => context.shape(1).cloned(),
        _ => Some(Vec::new()),
    };
    Some(vec![loss, context.shape(0).cloned()])
}

fn window(context: &Context<'_>) -> Option<Shapes> {
    one(vec![context.constant_int(0).map_or(Dim::Unknown, dims::dim)])
}

/// Sizes are the number of bins of a one-sided spectrum, and of mel bins.
fn mel(context: &Context<'_>) -> Option<Shapes> {
    let bins = context.constant_int(1).and_then(|length| (length / 2).checked_add(1));
    let mel = context.constant_int(0).map_or(Dim::Unknown, dims::dim);
    one(vec![bins.map_or(Dim::Unknown, dims::dim), mel])
}

fn dft(context: &Context<'_>) -> Option<Shapes> {
    let mut shape = context.shape(0)?.clone();
    let axis = if context.version < 20 {
        Some(context.int("axis", 1))
    } else if context.has(2) {
        context.constant_int(2)
    } else {
        Some(-2)
    };
    let one_sided = context.int("onesided", 0) != 0;
    let inverse = context.int("inverse", 0) != 0;
    let Some(axis) = axis.and_then(|axis| dims::axis(axis, shape.len())) else {
        return one(dims::unknown(shape.len()));
    };
    let size = if context.has(1) {
        context.constant_int(1).map_or(Dim::Unknown, dims::dim)
    } else {
        shape[axis].clone()
    };
    shape[axis] = match (one_sided, inverse) {
        (false, _) => size,
        (true, false) => half(&size),
        (true, true) if context.has(1) => size,
        (true, true) => Dim::Unknown,
    };
    *shape.last_mut()? = if one_sided && inverse { Dim::Unknown } else { Dim::Fixed(2) };
    one(shape)
}

/// Bins of a one-sided spectrum.
fn half(size: &Dim) -> Dim {
    dims::fixed(size).map_or(Dim::Unknown, |size| dims::dim(size / 2 + 1))
}

/// Batch, frames, bins, and two for the complex number.
fn stft(context: &Context<'_>) -> Option<Shapes> {
    let length = context.constant_int(3).or_else(|| dims::fixed(&context.dim(2, 0)));
    let bins = match length {
        Some(length) if context.int("onesided", 1) != 0 => half(&dims::dim(length)),
        Some(length) => dims::dim(length),
        None => Dim::Unknown,
    };
    let frames = || {
        let (signal, step) = (dims::fixed(&context.dim(0, 1))?, context.constant_int(1)?);
        let room = signal.checked_sub(length?)?;
        (room >= 0 && step > 0).then(|| room / step + 1)
    };
    let frames = frames().map_or(Dim::Unknown, dims::dim);
    one(vec![context.dim(0, 0), frames, bins, Dim::Fixed(2)])
}

fn string_split(context: &Context<'_>) -> Option<Shapes> {
    let counts = context.shape(0)?.clone();
    let mut parts = counts.clone();
    parts.push(Dim::Unknown);
    Some(vec![Some(parts), Some(counts)])
}

fn tf_idf(context: &Context<'_>) -> Option<Shapes> {
    let most = context.ints("ngram_indexes")?.iter().max()?;
    let (_, outer) = context.shape(0)?.split_last()?;
    let mut shape = outer.to_vec();
    shape.push(dims::add(&dims::dim(*most), 1));
    one(shape)
}

fn image(context: &Context<'_>) -> Option<Shapes> {
    let channels = match context.string("pixel_format") {
        Some("Grayscale") => Dim::Fixed(1),
        Some("RGB" | "BGR") => Dim::Fixed(3),
        None if context.attribute("pixel_format").is_none() => Dim::Fixed(3),
        _ => Dim::Unknown,
    };
    one(vec![Dim::Unknown, Dim::Unknown, channels])
}

/// Query, key and value are `[batch, length, heads * size]` or `[batch, heads, length, size]`.
fn attention(context: &Context<'_>) -> Option<Shapes> {
    let (q, k, v) = (context.shape(0)?, context.shape(1), context.shape(2));
    let heads = |name: &str| match context.int(name, 0) {
        count if count > 0 => dims::dim(count),
        _ => Dim::Unknown,
    };
    let size = |side: Option<&Shape>, at: usize| {
        side.and_then(|side| side.get(at)).cloned().unwrap_or(Dim::Unknown)
    };
    let (q_heads, kv_heads, length, kv_length, k_size, v_size) = match q.len() {
        4 => (q[1].clone(), size(k, 1), q[2].clone(), size(k, 2), size(k, 3), size(v, 3)),
        3 => {
            let (q_heads, kv_heads) = (heads("q_num_heads"), heads("kv_num_heads"));
            let each = |total: Dim| match dims::fixed(&kv_heads) {
                Some(count) => dims::divided(&total, count),
                None => Dim::Unknown,
            };
            let sizes = (each(size(k, 2)), each(size(v, 2)));
            (q_heads, kv_heads, q[1].clone(), size(k, 1), sizes.0, sizes.1)
        }
        _ => return None,
    };
    let batch = q[0].clone();
    let result = if q.len() == 4 {
        vec![batch.clone(), q_heads.clone(), length.clone(), v_size.clone()]
    } else {
        vec![batch.clone(), length.clone(), dims::product(&[q_heads.clone(), v_size.clone()])]
    };
    let total =
        if context.has(4) { dims::sum([&context.dim(4, 2), &kv_length]) } else { kv_length };
    let present = |size: Dim| Some(vec![batch.clone(), kv_heads.clone(), total.clone(), size]);
    let scores = vec![batch.clone(), q_heads, length, total.clone()];
    Some(vec![Some(result), present(k_size), present(v_size), Some(scores)])
}

/// Query, key and value are `[batch, heads, length, size]`.
fn flex_attention(context: &Context<'_>) -> Option<Shapes> {
    let [batch, heads, length, _] = context.shape(0)?.as_slice() else {
        return None;
    };
    one(vec![batch.clone(), heads.clone(), length.clone(), context.dim(2, 3)])
}

/// The result is `[batch, length, query heads * value size]`; the state of each head is
/// `[key size, value size]`.
fn linear_attention(context: &Context<'_>) -> Option<Shapes> {
    let [batch, length, _] = context.shape(0)?.as_slice() else {
        return None;
    };
    let (q, kv) = (context.int("q_num_heads", 0), context.int("kv_num_heads", 0));
    let size = |index: usize| match context.shape(index).and_then(|shape| shape.get(2)) {
        Some(total) if kv > 0 => dims::divided(total, kv),
        _ => Dim::Unknown,
    };
    let (key, value) = (size(1), size(2));
    let hidden = dims::times(&value, q.max(kv));
    let state = vec![batch.clone(), dims::dim(kv), key, value];
    let state = context.shape(3).cloned().unwrap_or(state);
    Some(vec![Some(vec![batch.clone(), length.clone(), hidden]), Some(state)])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, check};

    #[test]
    fn shapes_of_shapes() {
        check("Shape", "float[n,3]", "int64[2]");
        check("Shape start=i-1", "float[n,3]", "int64[1]");
        check("Shape start=i5 end=i-9", "float[n,3]", "int64[0]");
        check("Shape", "float[..]", "int64[?]");
        check("Size", "float[n]", "int64[]");
        check("ConstantOfShape", "int64[3]", "float[?, ?, ?]");
        check("ConstantOfShape", "int64{-5}", "float[?]");
        check("NonZero", "float[n,3]", "int64[2, ?]");
    }

    #[test]
    fn constants_of_every_attribute() {
        check("Constant value_ints=[1,2,3]", "", "int64[3]");
        check("Constant value_float=f1.5", "", "float[]");
        check("Constant value_string=sx", "", "string[]");
        check("Constant", "", "-");
    }

    #[test]
    fn ranges_are_counted() {
        check("Range", "int64=0; int64=10; int64=3", "int64[4]");
        check("Range", "int64=10; int64=0; int64=-4", "int64[3]");
        check("Range", "int64=0; int64=10; int64=0", "int64[?]");
        check("Range", "float=0; float=1; float=0.25", "float[4]");
        check("Range", "float=0; float=1; float=0", "float[?]");
        check("Range", "int64[]; int64=10; int64=1", "int64[?]");
        check(
            "Range",
            "int64=-9223372036854775808; int64=9223372036854775807; int64=1",
            "int64[?]",
        );
    }

    #[test]
    fn others() {
        check("OneHot axis=i0", "int64[n]; int64=7; float[2]", "float[7, n]");
        check("NonMaxSuppression", "float[1,9,4]; float[1,2,9]", "int64[?, 3]");
        check("SoftmaxCrossEntropyLoss", "float[n,5]; int64[n]", "float[]; float[n, 5]");
        check("HannWindow", "int64=16", "float[16]");
        check("STFT", "float[1,128,1]; int64=8; float[16]", "float[1, 15, 9, 2]");
        at(17, "DFT onesided=i1", "float[1,10,1]", "float[1, 6, 2]");
        at(20, "DFT", "float[1,10,1]", "float[1, 10, 2]");
        at(
            23,
            "Attention q_num_heads=i4 kv_num_heads=i2",
            "float[b,q,32]; float[b,k,16]; float[b,k,20]",
            "float[b, q, 40]; float[b, 2, k, 8]; float[b, 2, k, 10]",
        );
    }
}
