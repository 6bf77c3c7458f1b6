//! What operators demand of the sizes of what they read.
//!
//! Only demands that hold for every run are listed, and only where all that they speak of is known,
//! so that a demand that is not met means a model that does not run.

use modelopt_graph::{Dim, Model, Node, NodeId, infer};

/// A demand on sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Two sizes are the same.
    Same(usize, usize),
    /// Two sizes are the same, or one of them is 1.
    Broadcast(usize, usize),
    /// A size is not below another.
    AtLeast(usize, usize),
    /// A size is a multiple of another.
    Multiple(usize, usize),
}

impl Demand {
    pub(super) fn is_met(self) -> bool {
        match self {
            Demand::Same(a, b) => a == b,
            Demand::Broadcast(a, b) => a == b || a == 1 || b == 1,
            Demand::AtLeast(size, least) => size >= least,
            Demand::Multiple(size, of) => of != 0 && size.is_multiple_of(of),
        }
    }
}

/// That the outputs of a model have elements.
pub(super) fn outputs(model: &Model) -> Vec<Demand> {
    let outputs = model.graph(model.main()).outputs.iter();
    let shapes = outputs.filter_map(|info| model.value(info.value).ty()?.shape());
    shapes.flatten().filter_map(|dim| Some(Demand::AtLeast(dim.fixed()?, 1))).collect()
}

/// The demands of a node, met or not, by what the model says of the types of its inputs.
pub(super) fn demands(model: &Model, id: NodeId) -> Vec<Demand> {
    let node = model.node(id);
    if !node.op.is_onnx() {
        return Vec::new();
    }
    let reads = Reads { model, node };
    let found = match node.op.name.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "And" | "Or" | "Xor" | "Equal" | "Greater"
        | "Less" => reads.opset().filter(|&opset| opset >= 7).map(|_| reads.broadcast()),
        "GreaterOrEqual" | "LessOrEqual" | "Max" | "Min" | "Mean" | "Sum" | "Mod" | "Where"
        | "PRelu" => Some(reads.broadcast()),
        "MatMul" | "MatMulInteger" => reads.matmul(1),
        "QLinearMatMul" => reads.matmul(3),
        "Gemm" => reads.gemm(),
        "Concat" => reads.concat(),
        "Conv" | "ConvInteger" => reads.conv(1),
        "QLinearConv" => reads.conv(3),
        "ConvTranspose" => reads.transposed(),
        "MaxPool" | "AveragePool" | "LpPool" => reads.window(None),
        "Reshape" => reads.reshape(),
        "Squeeze" => reads.squeeze(),
        "Split" => reads.split(),
        "Expand" => reads.expand(),
        "Gather" => reads.gather(),
        "DepthToSpace" => reads.blocks(&[1], 2),
        "SpaceToDepth" => reads.blocks(&[2, 3], 1),
        "BatchNormalization" | "InstanceNormalization" => reads.channels(),
        "LayerNormalization" => reads.last_axis(),
        "LSTM" | "GRU" | "RNN" => reads.recurrent(),
        "Pad" => reads.pad(),
        "TopK" => reads.top(),
        _ => None,
    };
    found.unwrap_or_default()
}

/// The sizes of a shape; those that are not known are `None`.
type Sizes = Vec<Option<usize>>;

struct Reads<'a> {
    model: &'a Model,
    node: &'a Node,
}

impl Reads<'_> {
    fn opset(&self) -> Option<i64> {
        self.model.opset(self.node.graph(), &self.node.op.domain)
    }

    fn shape(&self, index: usize) -> Option<Sizes> {
        let value = self.model.value(self.node.input(index)?);
        let known = value.ty().and_then(|ty| ty.shape());
        Some(known?.iter().map(Dim::fixed).collect())
    }

    fn integers(&self, attribute: &str, index: usize) -> Option<Vec<Option<i64>>> {
        if let Some(integers) = self.node.ints(attribute) {
            return Some(integers.iter().copied().map(Some).collect());
        }
        infer::known_integers(self.model, self.node.input(index)?)
    }

    fn broadcast(&self) -> Vec<Demand> {
        let shapes: Vec<Sizes> =
            (0..self.node.inputs().len()).filter_map(|index| self.shape(index)).collect();
        let mut found = Vec::new();
        for (index, first) in shapes.iter().enumerate() {
            for second in shapes.iter().skip(index + 1) {
                found.extend(aligned(first, second));
            }
        }
        found
    }

    fn matmul(&self, right: usize) -> Option<Vec<Demand>> {
        let (a, b) = (self.shape(0)?, self.shape(right)?);
        let (inner_a, batch_a) = match a.as_slice() {
            [] => return None,
            [inner] => (*inner, &[][..]),
            [batch @ .., _, inner] => (*inner, batch),
        };
        let (inner_b, batch_b) = match b.as_slice() {
            [] => return None,
            [inner] => (*inner, &[][..]),
            [batch @ .., inner, _] => (*inner, batch),
        };
        Some(same(inner_a, inner_b).into_iter().chain(aligned(batch_a, batch_b)).collect())
    }

    fn gemm(&self) -> Option<Vec<Demand>> {
        let (a, b) = (self.shape(0)?, self.shape(1)?);
        let inner_a = a.get(usize::from(self.node.int("transA", 0) == 0))?;
        let inner_b = b.get(usize::from(self.node.int("transB", 0) != 0))?;
        Some(same(*inner_a, *inner_b).into_iter().collect())
    }

    fn concat(&self) -> Option<Vec<Demand>> {
        let shapes: Vec<Sizes> =
            (0..self.node.inputs().len()).filter_map(|index| self.shape(index)).collect();
        let (first, others) = shapes.split_first()?;
        let axis = place(self.node.int("axis", 1), first.len())?;
        let others = others.iter().filter(|other| other.len() == first.len());
        let pairs = others.flat_map(|other| first.iter().zip(other).enumerate());
        Some(pairs.filter(|(at, _)| *at != axis).filter_map(|(_, (a, b))| same(*a, *b)).collect())
    }

    fn conv(&self, weight: usize) -> Option<Vec<Demand>> {
        let (x, w) = (self.shape(0)?, self.shape(weight)?);
        let group = usize::try_from(self.node.int("group", 1)).ok()?;
        let channels = w.get(1).copied().flatten().and_then(|size| size.checked_mul(group));
        let mut found: Vec<Demand> =
            same(x.get(1).copied().flatten(), channels).into_iter().collect();
        found.extend(self.window(w.get(2..)).unwrap_or_default());
        Some(found)
    }

    fn transposed(&self) -> Option<Vec<Demand>> {
        let (x, w) = (self.shape(0)?, self.shape(1)?);
        Some(same(*x.get(1)?, *w.first()?).into_iter().collect())
    }

    /// A window fits into each axis, padding included.
    fn window(&self, weight: Option<&[Option<usize>]>) -> Option<Vec<Demand>> {
        if self.node.string("auto_pad").is_some_and(|pad| pad.starts_with("SAME")) {
            return None;
        }
        let x = self.shape(0)?;
        let spatial = x.get(2..)?;
        let kernel: Sizes = match (self.node.ints("kernel_shape"), weight) {
            (Some(kernel), _) => kernel.iter().map(|&size| usize::try_from(size).ok()).collect(),
            (None, Some(weight)) => weight.to_vec(),
            (None, None) => return None,
        };
        let at = |name: &str, axis: usize, default: usize| {
            let list = self.node.ints(name).and_then(|list| list.get(axis).copied());
            list.map_or(Some(default), |size| usize::try_from(size).ok())
        };
        let demand = |(axis, (size, kernel)): (usize, (&Option<usize>, &Option<usize>))| {
            let reach = (*kernel)?.checked_sub(1)?.checked_mul(at("dilations", axis, 1)?)?;
            let pads = at("pads", axis, 0)?.checked_add(at("pads", axis + spatial.len(), 0)?)?;
            Some(Demand::AtLeast((*size)?, reach.checked_add(1)?.saturating_sub(pads).max(1)))
        };
        Some(spatial.iter().zip(&kernel).enumerate().filter_map(demand).collect())
    }

    fn reshape(&self) -> Option<Vec<Demand>> {
        let x = self.shape(0)?;
        let all = product(&x)?;
        let copies = self.node.int("allowzero", 0) == 0;
        let mut open = 0;
        let mut kept = 1usize;
        for (index, size) in self.integers("shape", 1)?.into_iter().enumerate() {
            match size {
                Some(0) if copies => match x.get(index) {
                    Some(size) => kept = kept.checked_mul((*size)?)?,
                    // There is nothing to copy.
                    None => return Some(vec![Demand::AtLeast(x.len(), index + 1)]),
                },
                Some(-1) | None => open += 1,
                Some(size) => kept = kept.checked_mul(usize::try_from(size).ok()?)?,
            }
        }
        Some(match open {
            0 => vec![Demand::Same(all, kept)],
            1 if kept > 0 => vec![Demand::Multiple(all, kept)],
            _ => Vec::new(),
        })
    }

    fn squeeze(&self) -> Option<Vec<Demand>> {
        let x = self.shape(0)?;
        let axes = self.integers("axes", 1)?;
        let size = |axis: Option<i64>| x.get(place(axis?, x.len())?).copied().flatten();
        Some(axes.into_iter().filter_map(|axis| Some(Demand::Same(size(axis)?, 1))).collect())
    }

    fn split(&self) -> Option<Vec<Demand>> {
        let x = self.shape(0)?;
        let size = (*x.get(place(self.node.int("axis", 0), x.len())?)?)?;
        if self.node.ints("split").is_some() || self.node.input(1).is_some() {
            let parts = self.integers("split", 1)?;
            let total = parts
                .into_iter()
                .try_fold(0usize, |total, part| total.checked_add(usize::try_from(part?).ok()?))?;
            return Some(vec![Demand::Same(size, total)]);
        }
        let parts = self.node.outputs().len();
        // Since version 18 the last part may be smaller.
        (self.opset()? < 18).then(|| vec![Demand::Multiple(size, parts)])
    }

    fn expand(&self) -> Option<Vec<Demand>> {
        let target = self.integers("", 1)?;
        let target: Sizes = target.into_iter().map(|size| usize::try_from(size?).ok()).collect();
        Some(aligned(&self.shape(0)?, &target).collect())
    }

    /// Constant indices lie inside the axis.
    fn gather(&self) -> Option<Vec<Demand>> {
        let x = self.shape(0)?;
        let size = (*x.get(place(self.node.int("axis", 0), x.len())?)?)?;
        let indices = self.integers("", 1)?;
        let least = indices.into_iter().flatten().map(|index| {
            let index = if index < 0 { index.unsigned_abs() } else { index.unsigned_abs() + 1 };
            usize::try_from(index).unwrap_or(usize::MAX)
        });
        Some(vec![Demand::AtLeast(size, least.max()?)])
    }

    /// Axes are cut into blocks; with several, as often as there are dimensions of a block.
    fn blocks(&self, axes: &[usize], power: u32) -> Option<Vec<Demand>> {
        let x = self.shape(0)?;
        let block = usize::try_from(self.node.int("blocksize", 0)).ok()?.checked_pow(power)?;
        let demand = |&axis: &usize| Some(Demand::Multiple((*x.get(axis)?)?, block));
        Some(axes.iter().filter_map(demand).collect())
    }

    /// The second axis has as many elements as the scale.
    fn channels(&self) -> Option<Vec<Demand>> {
        let (x, scale) = (self.shape(0)?, self.shape(1)?);
        Some(same(*x.get(1)?, *scale.first()?).into_iter().collect())
    }

    /// The last axis has as many elements as the scale.
    fn last_axis(&self) -> Option<Vec<Demand>> {
        let (x, scale) = (self.shape(0)?, self.shape(1)?);
        Some(same(*x.last()?, *scale.last()?).into_iter().collect())
    }

    fn recurrent(&self) -> Option<Vec<Demand>> {
        let (x, w) = (self.shape(0)?, self.shape(1)?);
        let [first, second, features] = *x.as_slice() else { return None };
        let batch = if self.node.int("layout", 0) == 0 { second } else { first };
        let mut found: Vec<Demand> = same(features, *w.get(2)?).into_iter().collect();
        let batch_axis = usize::from(self.node.int("layout", 0) == 0);
        for state in [5, 6] {
            let size = self.shape(state).and_then(|state| state.get(batch_axis).copied().flatten());
            found.extend(same(batch, size));
        }
        Some(found)
    }

    /// What is mirrored is there.
    fn pad(&self) -> Option<Vec<Demand>> {
        if self.node.string("mode") != Some("reflect") {
            return None;
        }
        let x = self.shape(0)?;
        let pads = self.integers("pads", 1)?;
        if pads.len() != x.len() * 2 {
            return None;
        }
        let demand = |(index, pad): (usize, Option<i64>)| {
            let least = usize::try_from(pad?).ok()?.checked_add(1)?;
            Some(Demand::AtLeast((*x.get(index % x.len())?)?, least))
        };
        Some(pads.into_iter().enumerate().filter_map(demand).collect())
    }

    fn top(&self) -> Option<Vec<Demand>> {
        let x = self.shape(0)?;
        let size = (*x.get(place(self.node.int("axis", -1), x.len())?)?)?;
        let count = self.integers("", 1)?.first().copied().flatten()?;
        Some(vec![Demand::AtLeast(size, usize::try_from(count).ok()?)])
    }
}

/// An axis that may count from the end.
fn place(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    usize::try_from(axis).ok().filter(|_| axis < rank)
}

fn product(sizes: &[Option<usize>]) -> Option<usize> {
    sizes.iter().try_fold(1usize, |product, size| product.checked_mul((*size)?))
}

fn same(a: Option<usize>, b: Option<usize>) -> Option<Demand> {
    Some(Demand::Same(a?, b?))
}

/// Sizes broadcast against each other, the last ones first.
fn aligned<'a>(
    a: &'a [Option<usize>],
    b: &'a [Option<usize>],
) -> impl Iterator<Item = Demand> + 'a {
    let pairs = a.iter().rev().zip(b.iter().rev());
    pairs.filter_map(|(a, b)| Some(Demand::Broadcast((*a)?, (*b)?)))
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{
        AttributeValue, DataType, ModelInfo, NewNode, Operator, OpsetImport, Origin, Place, Tensor,
        Type,
    };

    use super::*;

    /// The demands of an operator at opset 17 on inputs of these shapes; `Err` is a constant.
    fn of(
        op: &str,
        attributes: &[(&str, AttributeValue)],
        inputs: &[Result<&[usize], &[i64]>],
    ) -> Vec<Demand> {
        let mut model = Model::new(ModelInfo { ir_version: 8, ..ModelInfo::default() });
        let opset = OpsetImport { domain: String::new(), version: 17, origin: Origin::NONE };
        model.info.opsets.push(opset);
        let main = model.main();
        let values = inputs.iter().enumerate().map(|(index, input)| {
            let value = model.add_value(format!("x{index}"));
            match input {
                Ok(shape) => {
                    let shape = shape.iter().map(|&size| Dim::Fixed(size)).collect();
                    let ty = Type::Tensor { elem: DataType::FLOAT, shape: Some(shape) };
                    model.set_type(value, Some(ty));
                }
                Err(elements) => {
                    let tensor = Tensor::of(vec![elements.len()], elements).unwrap();
                    let constant = modelopt_graph::Constant::Dense(tensor.into());
                    model.set_constant(main, value, constant);
                }
            }
            Some(value)
        });
        let inputs = values.collect();
        let output = model.add_value("y");
        let attributes = attributes
            .iter()
            .map(|(name, value)| modelopt_graph::Attribute::new(*name, value.clone()))
            .collect();
        let node = NewNode {
            name: String::new(),
            op: Operator::onnx(op),
            inputs,
            outputs: vec![Some(output)],
            attributes,
            origin: Origin::NONE,
        };
        let id = model.insert(node, Place::Back(main));
        demands(&model, id)
    }

    fn int(value: i64) -> AttributeValue {
        AttributeValue::Int(value)
    }

    fn ints(values: &[i64]) -> AttributeValue {
        AttributeValue::Ints(values.to_vec())
    }

    #[test]
    fn operands_agree() {
        use Demand::{Broadcast, Same};
        assert_eq!(of("Add", &[], &[Ok(&[2, 3]), Ok(&[4])]), [Broadcast(3, 4)]);
        assert_eq!(
            of("MatMul", &[], &[Ok(&[5, 2, 3]), Ok(&[6, 4, 7])]),
            [Same(3, 4), Broadcast(5, 6)]
        );
        assert_eq!(of("Gemm", &[("transB", int(1))], &[Ok(&[2, 3]), Ok(&[7, 4])]), [Same(3, 4)]);
        assert_eq!(of("Concat", &[("axis", int(-1))], &[Ok(&[2, 3]), Ok(&[4, 5])]), [Same(2, 4)]);
        assert_eq!(of("Expand", &[], &[Ok(&[2]), Err(&[3])]), [Broadcast(2, 3)]);
    }

    #[test]
    fn windows_fit() {
        use Demand::{AtLeast, Same};
        let conv = [("dilations", ints(&[4])), ("pads", ints(&[1, 1]))];
        assert_eq!(
            of("Conv", &conv, &[Ok(&[1, 2, 9]), Ok(&[5, 2, 3])]),
            [Same(2, 2), AtLeast(9, 7)]
        );
        let same = [("auto_pad", AttributeValue::String("SAME_UPPER".into()))];
        assert_eq!(of("Conv", &same, &[Ok(&[1, 2, 1]), Ok(&[5, 2, 3])]), [Same(2, 2)]);
        assert_eq!(
            of("MaxPool", &[("kernel_shape", ints(&[3]))], &[Ok(&[1, 2, 2])]),
            [AtLeast(2, 3)]
        );
    }

    #[test]
    fn elements_are_all_there() {
        use Demand::{AtLeast, Multiple, Same};
        assert_eq!(of("Reshape", &[], &[Ok(&[2, 12]), Err(&[0, -1, 5])]), [Multiple(24, 10)]);
        assert_eq!(of("Reshape", &[], &[Ok(&[2, 12]), Err(&[4, 6])]), [Same(24, 24)]);
        assert_eq!(of("Reshape", &[], &[Ok(&[2]), Err(&[1, 0, 2])]), [AtLeast(1, 2)]);
        assert_eq!(of("Split", &[("axis", int(1))], &[Ok(&[2, 7]), Err(&[3, 3])]), [Same(7, 6)]);
        assert_eq!(of("Squeeze", &[], &[Ok(&[2, 7]), Err(&[-1])]), [Same(7, 1)]);
        assert_eq!(of("Gather", &[], &[Ok(&[2]), Err(&[0, 4, -9])]), [AtLeast(2, 9)]);
        assert_eq!(
            of("SpaceToDepth", &[("blocksize", int(2))], &[Ok(&[1, 3, 4, 5])]),
            [Multiple(4, 2), Multiple(5, 2)]
        );
    }

    #[test]
    fn nothing_is_demanded_of_what_is_not_known() {
        assert_eq!(of("NonZero", &[], &[Ok(&[2])]), []);
        assert_eq!(of("Add", &[], &[Ok(&[2])]), []);
        assert_eq!(of("Conv", &[], &[Ok(&[2])]), []);
    }
}
