//! A normalization over the last axes, spelled out:
//!
//! ```text
//! m = ReduceMean(x, axes); d = x - m; v = ReduceMean(d * d, axes)
//! y = d / Sqrt(v + epsilon) * scale + bias
//!   =>
//! y = LayerNormalization(x, scale, bias)
//! ```
//!
//! The square may be a `Pow`, the division a product with the reciprocal; scale and bias may be
//! missing. `LayerNormalization` came with opset 17. Not done where the axes are not the last ones or
//! their sizes are not known, where scale or bias change along other axes, or where something else
//! reads a value in between.

use std::sync::{Arc, LazyLock};

use modelopt_graph::{Dim, Model, NodeId, Operand, Patch, Tensor, Type, ValueId};

use super::affine::{finite, float32};
use super::fusion;
use crate::engine::{Declined, Rewrite};
use crate::pattern::{Expr, Match, any, constant, either, op, optional, scalar};

pub(crate) struct LayerNorm;

static PATTERN: LazyLock<Expr> = LazyLock::new(|| {
    let x = any("x");
    let mean = |of: Expr, axes| op("ReduceMean", [of, optional(any(axes))]);
    let centred = x.clone() - mean(x, "axes");
    let square =
        either([op("Pow", [centred.clone(), 2.0.into()]), centred.clone() * centred.clone()]);
    let variance = mean(square, "variance axes") + scalar("epsilon");
    let deviation = either([op("Sqrt", [variance.clone()]), op("Pow", [variance, 0.5.into()])]);
    let normal = either([
        centred.clone() / deviation.clone(),
        centred.clone() * op("Reciprocal", [deviation.clone()]),
        centred * (1.0 / deviation),
    ]);
    let scaled = normal.clone() * constant("scale");
    either([scaled.clone() + constant("bias"), normal.clone() + constant("bias"), scaled, normal])
});

impl Rewrite for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let found = PATTERN.find(model, id)?;
        let x = found.required("x")?;
        fusion::has_opset(model, &found, 17)?;
        fusion::is_float32(model, x)?;
        let sizes = normalized(model, &found, x)?;
        let epsilon = found.number(model, "epsilon").unwrap_or(-1.0);
        if epsilon < 0.0 || !epsilon.is_finite() {
            return Err(Declined::Unsafe("its epsilon is no small number"));
        }
        let scale = parameter(model, &found, "scale", &sizes)?;
        let bias = parameter(model, &found, "bias", &sizes)?;
        let scale = match scale {
            Some(scale) => scale,
            None => finite(sizes.clone(), &vec![1.0; sizes.iter().product()])?,
        };
        let output = model.node(id).output(0).ok_or(Declined::NoMatch)?;
        let (graph, name) = (model.node(id).graph(), model.value(output).name());
        let mut patch = Patch::new();
        let mut inputs = vec![Operand::Value(x)];
        inputs.push(patch.constant(graph, format!("{name}_scale"), scale));
        if let Some(bias) = bias {
            inputs.push(patch.constant(graph, format!("{name}_bias"), bias));
        }
        let attributes =
            [("axis", (-(sizes.len() as i64)).into()), ("epsilon", (epsilon as f32).into())];
        fusion::replace(model, &found, patch, "LayerNormalization", &inputs, &attributes)
    }

    fn requires(&self) -> &[&'static str] {
        &["constants", "fold", "types"]
    }

    fn backwards(&self) -> bool {
        true
    }
}

/// The sizes of the axes that both means are taken over, if those are the last ones.
fn normalized(model: &Model, found: &Match, x: ValueId) -> Result<Vec<usize>, Declined> {
    let shape = model.value(x).ty().and_then(Type::shape);
    let shape = shape.ok_or(Declined::Unsafe("its rank is not known"))?;
    let means = found.nodes().iter().filter(|&&id| model.node(id).op.is("ReduceMean"));
    let axes: Option<Vec<Vec<usize>>> = means.map(|&id| axes(model, id, shape.len())).collect();
    let axes = axes.ok_or(Declined::Unsafe("its axes are not known"))?;
    let [first, others @ ..] = &axes[..] else { return Err(Declined::NoMatch) };
    if others.iter().any(|other| other != first) {
        return Err(Declined::Unsafe("mean and variance are over other axes"));
    }
    let start = shape.len() - first.len();
    if first.is_empty() || !first.iter().copied().eq(start..shape.len()) {
        return Err(Declined::Unsafe("its axes are not the last ones"));
    }
    let sizes: Option<Vec<usize>> = shape[start..].iter().map(Dim::fixed).collect();
    sizes.ok_or(Declined::Unsafe("the sizes of its axes are not known"))
}

/// The axes that a `ReduceMean` which keeps dimensions is over, in order.
fn axes(model: &Model, id: NodeId, rank: usize) -> Option<Vec<usize>> {
    let node = model.node(id);
    if node.int("keepdims", 1) == 0 {
        return None;
    }
    let given = match node.input(1) {
        Some(axes) => model.constant(axes)?.to_i64()?,
        None => node.ints("axes")?.to_vec(),
    };
    let place = |axis: i64| {
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(axis).ok().filter(|&axis| axis < rank)
    };
    let mut axes = given.into_iter().map(place).collect::<Option<Vec<_>>>()?;
    axes.sort_unstable();
    axes.dedup();
    Some(axes)
}

/// Scale or bias as a tensor of the normalized sizes, where the match has one.
fn parameter(
    model: &Model,
    found: &Match,
    name: &str,
    sizes: &[usize],
) -> Result<Option<Arc<Tensor>>, Declined> {
    let Some(value) = found.value(name) else { return Ok(None) };
    let tensor = float32(model, value)?;
    let data = tensor.to_f32().ok_or(Declined::NoMatch)?;
    let rank = model.value(found.required("x")?).ty().and_then(Type::shape).map_or(0, Vec::len);
    let other = Declined::Unsafe("scale or bias does not run along the normalized axes");
    if tensor.shape().len() > rank {
        return Err(other);
    }
    if let [number] = *data {
        return finite(sizes.to_vec(), &vec![number; sizes.iter().product()]).map(Some);
    }
    let ones = tensor.shape().len().checked_sub(sizes.len()).ok_or(other)?;
    let (outer, inner) = tensor.shape().split_at(ones);
    if inner == sizes && outer.iter().all(|&size| size == 1) {
        finite(sizes.to_vec(), &data).map(Some)
    } else {
        Err(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{assert_same_results, fused};
    use crate::testing::{Build, float, noise};

    const SHAPE: [usize; 3] = [2, 3, 8];

    /// How a model of a test differs from what `PyTorch` exports.
    #[derive(Clone)]
    struct Spelling {
        opset: i64,
        axes: Vec<i64>,
        product: bool,
        reciprocal: bool,
        affine: Option<Vec<usize>>,
    }

    fn exported() -> Spelling {
        let affine = Some(vec![8]);
        Spelling { opset: 17, axes: vec![-1], product: false, reciprocal: false, affine }
    }

    fn mean(b: &mut Build, x: ValueId, how: &Spelling) -> ValueId {
        if how.opset < 18 {
            return b.node("ReduceMean", &[x], &[("axes", how.axes.clone().into())]);
        }
        let name = b.model.fresh_name("axes");
        let axes = b.model.add_value(name);
        let tensor = Tensor::of(vec![how.axes.len()], &how.axes).unwrap();
        let constant = modelopt_graph::Constant::Dense(Arc::new(tensor));
        b.model.set_constant(b.model.main(), axes, constant);
        b.node("ReduceMean", &[x, axes], &[])
    }

    fn model(how: &Spelling) -> Build {
        let mut b = Build::new(how.opset);
        let x = b.input("x", float(&SHAPE));
        let middle = mean(&mut b, x, how);
        let d = b.node("Sub", &[x, middle], &[]);
        let square = if how.product {
            b.node("Mul", &[d, d], &[])
        } else {
            let two = b.weight("two", &[], &[2.0]);
            b.node("Pow", &[d, two], &[])
        };
        let variance = mean(&mut b, square, how);
        let epsilon = b.weight("epsilon", &[], &[1e-3]);
        let sum = b.node("Add", &[variance, epsilon], &[]);
        let deviation = b.node("Sqrt", &[sum], &[]);
        let mut y = if how.reciprocal {
            let inverse = b.node("Reciprocal", &[deviation], &[]);
            b.node("Mul", &[inverse, d], &[])
        } else {
            b.node("Div", &[d, deviation], &[])
        };
        if let Some(shape) = &how.affine {
            let count = shape.iter().product();
            let scale = b.weight("scale", shape, &noise(count, 3));
            let bias = b.weight("bias", shape, &noise(count, 4));
            y = b.node("Mul", &[y, scale], &[]);
            y = b.node("Add", &[y, bias], &[]);
        }
        b.output(y, float(&SHAPE));
        b
    }

    fn becomes_one(how: &Spelling, axis: i64, inputs: usize) {
        let mut b = model(how);
        let before = b.model.clone();
        assert_eq!(fused(&mut b, &LayerNorm), 1);
        assert_eq!(b.ops(), ["LayerNormalization"]);
        let node = b.model.node(b.model.walk()[0]);
        assert_eq!((node.int("axis", 0), node.inputs().len()), (axis, inputs));
        assert!((node.float("epsilon", 0.0) - 1e-3).abs() < 1e-9);
        assert_same_results(&before, &b.model, 1e-5);
    }

    #[test]
    fn every_spelling_becomes_one_node_with_the_same_numbers() {
        becomes_one(&exported(), -1, 3);
        becomes_one(&Spelling { opset: 18, product: true, ..exported() }, -1, 3);
        becomes_one(&Spelling { axes: vec![2], reciprocal: true, ..exported() }, -1, 3);
        becomes_one(&Spelling { affine: Some(vec![1, 1, 8]), ..exported() }, -1, 3);
        let both = Spelling { axes: vec![-1, 1], affine: Some(vec![3, 8]), ..exported() };
        becomes_one(&both, -2, 3);
    }

    #[test]
    fn without_scale_and_bias_the_scale_is_one() {
        let how = Spelling { affine: None, ..exported() };
        becomes_one(&how, -1, 2);
        let mut b = model(&how);
        fused(&mut b, &LayerNorm);
        let scale = b.model.node(b.model.walk()[0]).input(1).unwrap();
        assert_eq!(*b.model.constant(scale).unwrap().to_f32().unwrap(), [1.0; 8]);
    }

    #[test]
    fn older_opsets_and_other_axes_stay() {
        assert_eq!(fused(&mut model(&Spelling { opset: 16, ..exported() }), &LayerNorm), 0);
        assert_eq!(fused(&mut model(&Spelling { axes: vec![1], ..exported() }), &LayerNorm), 0);
        assert_eq!(fused(&mut model(&Spelling { axes: vec![0, 2], ..exported() }), &LayerNorm), 0);
    }

    #[test]
    fn a_scale_along_another_axis_stays_behind() {
        let mut b = model(&Spelling { affine: Some(vec![3, 1]), ..exported() });
        assert_eq!(fused(&mut b, &LayerNorm), 1);
        assert_eq!(b.ops(), ["LayerNormalization", "Mul", "Add"]);
    }

    #[test]
    fn a_variance_that_is_read_elsewhere_stays() {
        let mut b = model(&exported());
        let sqrt = b.model.walk().into_iter().find(|&n| b.model.node(n).op.is("Sqrt")).unwrap();
        let deviation = b.model.node(sqrt).output(0).unwrap();
        b.output(deviation, float(&[2, 3, 1]));
        assert_eq!(fused(&mut b, &LayerNorm), 0);
    }
}
