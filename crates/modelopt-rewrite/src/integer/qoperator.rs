//! Operators of integers in place of operators of float between what dequantizes and what quantizes: the form
//! that ONNX calls `QOperator`.
//!
//! ```text
//! y = Q(Conv(DQ(x), DQ(w), DQ(b)))   =>   y = QLinearConv(x, w, b)
//! y = Q(Reshape(DQ(x)))              =>   y = Reshape(x)    where both have one range
//! y = MatMul(DQ(x), DQ(w))           =>   y = MatMulIntegerToFloat(x, w)
//! ```
//!
//! What has no such operator stays where it is.

use modelopt_graph::{
    Attribute, DataType, Model, NewNode, NodeId, Operator, OpsetImport, Origin, Place, ValueId,
    schema,
};

use super::kernels::{Kernel, kernel, numbers};
use super::regions::Regions;
use super::spelled_out;

/// The domain of the operators that ONNX itself does not have.
const CONTRIB: &str = "com.microsoft";

/// The version of that domain, which has one.
const CONTRIB_VERSION: i64 = 1;

/// The operator whose channels may be its last dimension.
const AVERAGE: &str = "QLinearGlobalAveragePool";

/// Puts operators of integers in place of nodes that compute on integers.
pub(crate) fn fuse(model: &mut Model, regions: &Regions) {
    for &node in &regions.nodes {
        // What does not fit stays as it is.
        match kernel(model.node(node)) {
            Some(Kernel::Moving) => move_integers(model, node).unwrap_or_default(),
            Some(_) => compute_on_integers(model, node).unwrap_or_default(),
            None => {}
        }
    }
    spelled_out::by_channel(model);
}

/// Numbers that stand for others: integers, and their scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quantized {
    integers: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
}

impl Quantized {
    /// Of a node that quantizes or dequantizes: what is left of each side.
    fn of(model: &Model, id: NodeId, integers: ValueId) -> Option<Self> {
        let node = model.node(id);
        Some(Quantized { integers, scale: node.input(1)?, zero: node.input(2) })
    }

    fn has_one_scale(self, model: &Model) -> bool {
        model.constant(self.scale).is_some_and(|scale| scale.len() == 1)
    }

    fn is_like(self, other: Self, model: &Model) -> bool {
        let same = |a: Option<ValueId>, b: Option<ValueId>| {
            a.and_then(|a| model.constant(a)) == b.and_then(|b| model.constant(b))
        };
        same(Some(self.scale), Some(other.scale)) && same(self.zero, other.zero)
    }

    fn operands(self) -> [Option<ValueId>; 3] {
        [Some(self.integers), Some(self.scale), self.zero]
    }

    fn parameters(self) -> [Option<ValueId>; 2] {
        [Some(self.scale), self.zero]
    }
}

/// What a value is dequantized from.
fn dequantized(model: &Model, value: ValueId) -> Option<Quantized> {
    let id = model.producer_node(value)?;
    let node = model.node(id);
    let is_it = node.op.is("DequantizeLinear");
    Quantized::of(model, id, node.input(0).filter(|_| is_it)?)
}

/// What a value becomes where all that reads it is one node that quantizes it, and that node.
fn quantized(model: &Model, value: ValueId) -> Option<(Quantized, NodeId)> {
    let mut readers = model.consumers(value);
    let (Some((reader, 0)), None, false) =
        (readers.next(), readers.next(), model.value(value).is_output())
    else {
        return None;
    };
    let node = model.node(reader);
    let is_it = node.op.is("QuantizeLinear") && node.graph() == model.main();
    let made = Quantized::of(model, reader, node.output(0).filter(|_| is_it)?)?;
    Some((made, reader))
}

/// Lets a node that only moves numbers move their integers.
fn move_integers(model: &mut Model, id: NodeId) -> Option<()> {
    let node = model.node(id);
    let read = dequantized(model, node.input(0)?).filter(|read| read.has_one_scale(model))?;
    if !moves_bytes(model, id) {
        return None;
    }
    let outputs = node.outputs().iter().enumerate();
    let made: Vec<(usize, Quantized, NodeId)> = outputs
        .filter_map(|(place, output)| Some((place, (*output)?)))
        .map(|(place, output)| quantized(model, output).map(|(made, by)| (place, made, by)))
        .collect::<Option<_>>()?;
    if !made.iter().all(|(_, made, _)| made.is_like(read, model)) {
        return None;
    }
    model.set_input(id, 0, Some(read.integers));
    for (place, made, by) in made {
        model.remove(by);
        model.set_output(id, place, made.integers);
    }
    Some(())
}

/// Whether a node that moves numbers does the same to integers of 8 bits.
fn moves_bytes(model: &Model, id: NodeId) -> bool {
    let node = model.node(id);
    let version = model.opset(node.graph(), "").unwrap_or_default();
    let takes = schema::lookup("", &node.op.name, version).is_some_and(|schema| {
        schema.formal_input(0).is_some_and(|formal| schema.allows(formal, DataType::UINT8))
    });
    // Numbers between integers would be rounded, and what stands for what is outside is no zero point.
    let resizes_otherwise = node.op.is("Resize")
        && (node.string("mode").is_some_and(|mode| mode != "nearest")
            || node.string("coordinate_transformation_mode") == Some("tf_crop_and_resize"));
    takes && !resizes_otherwise
}

/// A node that computes on integers, as operators of integers list what they read and make.
struct Group {
    /// What it reads.
    read: Vec<Quantized>,
    /// Integers of the bias.
    bias: Option<ValueId>,
    /// What it makes, and the node that quantizes that; none where it is left as float.
    made: Option<(Quantized, NodeId)>,
}

impl Group {
    fn of(model: &Model, id: NodeId) -> Option<Self> {
        let node = model.node(id);
        let is_product = kernel(node) == Some(Kernel::Product);
        let places = if is_product { 0..2 } else { numbers(node) };
        let read: Vec<Quantized> =
            places.map(|place| dequantized(model, node.input(place)?)).collect::<Option<_>>()?;
        let activations = if is_product { read.get(..1)? } else { &read };
        if !activations.iter().all(|read| read.has_one_scale(model)) {
            return None;
        }
        let bias = match node.input(2).filter(|_| is_product) {
            Some(bias) => {
                let bias = dequantized(model, bias)?;
                has_steps_of(model, bias, &read).then_some(())?;
                Some(bias.integers)
            }
            None => None,
        };
        // What is quantized by channel is made as float.
        let made = quantized(model, node.output(0)?).filter(|(made, _)| made.has_one_scale(model));
        Some(Group { read, bias, made })
    }

    /// The operator of integers for one of float, if there is one.
    fn operator(&self, op: &str) -> Option<OfIntegers> {
        let read = self.read.iter().flat_map(|read| read.operands());
        let Some((made, _)) = self.made else { return self.operator_into_float(op) };
        let ends = made.parameters();
        let (name, domain, inputs): (_, _, Vec<_>) = match op {
            "Conv" => ("QLinearConv", "", read.chain(ends).chain([self.bias]).collect()),
            "MatMul" => ("QLinearMatMul", "", read.chain(ends).collect()),
            "Gemm" => ("QGemm", CONTRIB, read.chain([self.bias]).chain(ends).collect()),
            "Concat" => ("QLinearConcat", CONTRIB, ends.into_iter().chain(read).collect()),
            "Add" => ("QLinearAdd", CONTRIB, read.chain(ends).collect()),
            "Mul" => ("QLinearMul", CONTRIB, read.chain(ends).collect()),
            "Sigmoid" => ("QLinearSigmoid", CONTRIB, read.chain(ends).collect()),
            "LeakyRelu" => ("QLinearLeakyRelu", CONTRIB, read.chain(ends).collect()),
            "GlobalAveragePool" => (AVERAGE, CONTRIB, read.chain(ends).collect()),
            _ => return None,
        };
        Some(OfIntegers { name, domain, inputs })
    }

    /// The same where what is made is float.
    fn operator_into_float(&self, op: &str) -> Option<OfIntegers> {
        let [x, w] = self.read.as_slice() else { return None };
        let (name, inputs) = match op {
            "Gemm" => {
                let read = x.operands().into_iter().chain(w.operands());
                ("QGemm", read.chain([self.bias]).collect())
            }
            "MatMul" => {
                let inputs = [Some(x.integers), Some(w.integers), Some(x.scale), Some(w.scale)];
                ("MatMulIntegerToFloat", inputs.into_iter().chain([x.zero, w.zero]).collect())
            }
            _ => return None,
        };
        Some(OfIntegers { name, domain: CONTRIB, inputs })
    }
}

/// An operator of integers, and what it reads.
struct OfIntegers {
    name: &'static str,
    domain: &'static str,
    inputs: Vec<Option<ValueId>>,
}

/// Whether the steps of a bias are those of the product that it is added to.
fn has_steps_of(model: &Model, bias: Quantized, read: &[Quantized]) -> bool {
    let scales = |value: ValueId| Some(model.constant(value)?.to_f32()?.into_owned());
    let [x, w] = read else { return false };
    let (Some(steps), Some(x), Some(w)) = (scales(bias.scale), scales(x.scale), scales(w.scale))
    else {
        return false;
    };
    let products = x.first().map(|x| w.iter().map(|w| w * x).collect::<Vec<f32>>());
    products == Some(steps)
}

/// Puts the operator of integers in place of a node.
fn compute_on_integers(model: &mut Model, id: NodeId) -> Option<()> {
    let group = Group::of(model, id)?;
    let node = model.node(id);
    let OfIntegers { name, domain, mut inputs } = group.operator(&node.op.name)?;
    while inputs.last().is_some_and(Option::is_none) {
        inputs.pop();
    }
    let version = if domain.is_empty() { model.opset(node.graph(), "")? } else { CONTRIB_VERSION };
    let known = schema::lookup(domain, name, version)?;
    let kept = node.attributes.iter().filter(|own| known.attribute(&own.name).is_some());
    let mut attributes: Vec<Attribute> = kept.cloned().collect();
    if name == AVERAGE {
        attributes.push(Attribute::new("channels_last", 0));
    }
    let output = group.made.map_or(node.output(0), |(made, _)| Some(made.integers))?;
    let op = Operator { domain: domain.to_owned(), ..Operator::onnx(name) };
    let (name, outputs, origin) = (node.name.clone(), vec![Some(output)], Origin::NONE);
    // It takes over the output of what is removed.
    model.insert(NewNode { name, op, inputs, outputs, attributes, origin }, Place::Before(id));
    model.remove(id);
    if let Some((_, by)) = group.made {
        model.remove(by);
    }
    import(model, domain);
    Some(())
}

/// Lets a model use the operators of a domain.
fn import(model: &mut Model, domain: &str) {
    let opsets = &mut model.info.opsets;
    if !domain.is_empty() && opsets.iter().all(|import| import.domain != domain) {
        let version = CONTRIB_VERSION;
        opsets.push(OpsetImport { domain: domain.to_owned(), version, origin: Origin::NONE });
    }
}
