//! What stands in for each random operator.

use modelopt_graph::{AttributeValue, DataType, Model, Node, NodeId, ValueId};

use super::nodes::Nodes;
use super::numbers::{Extent, Numbers, affine};
use super::{number, ratio_input, refers_to_caller, truth};

/// Lets other nodes compute what a random one makes. The reason where they cannot.
pub(super) fn replace(model: &mut Model, id: NodeId, seed: u64) -> Result<(), &'static str> {
    let node = model.node(id).clone();
    let version = model.opset(node.graph(), "").ok_or("the model does not import ai.onnx")?;
    if version < 7 {
        return Err("operators do not broadcast before opset 7");
    }
    if refers_to_caller(&node) {
        return Err("what it draws is up to the callers of a function");
    }
    let made = node.outputs().iter().flatten().next().copied().ok_or("it makes nothing")?;
    let name = format!("{}/same_noise", model.value(made).name());
    let draft = Draft { node: &node, seed };
    let mut nodes = Nodes::new(model, id, version, name);
    match node.op.name.as_str() {
        "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike" => {
            draft.numbers(&mut nodes, made)?;
        }
        "Bernoulli" => draft.bernoulli(&mut nodes, made)?,
        "Multinomial" => draft.multinomial(&mut nodes, made)?,
        _ if ratio_input(&node.op).is_some() => draft.dropout(&mut nodes)?,
        _ => return Err("nothing is known that draws like it"),
    }
    model.remove(id);
    Ok(())
}

fn extent(nodes: &mut Nodes<'_>, value: ValueId) -> Result<Extent, &'static str> {
    Extent::of(nodes, value)
        .ok_or("before opset 9 elements can be counted only where their shape is fixed")
}

struct Draft<'a> {
    node: &'a Node,
    seed: u64,
}

impl Draft<'_> {
    fn input(&self, at: usize) -> Result<ValueId, &'static str> {
        self.node.input(at).ok_or("an input is missing")
    }

    /// The element type of what it makes.
    fn elem(&self, nodes: &Nodes<'_>, otherwise: Option<ValueId>) -> DataType {
        let declared = match self.node.attribute("dtype") {
            Some(AttributeValue::Int(number)) => i32::try_from(*number).ok(),
            _ => None,
        };
        let like = || otherwise.and_then(|value| nodes.model.value(value).elem());
        declared.map(DataType::from_number).or_else(like).unwrap_or(DataType::FLOAT)
    }

    /// `RandomNormal`, `RandomUniform`, and those that take the shape of a tensor.
    fn numbers(&self, nodes: &mut Nodes<'_>, made: ValueId) -> Result<(), &'static str> {
        let node = self.node;
        let (extent, elem) = if node.op.name.ends_with("Like") {
            let like = self.input(0)?;
            (extent(nodes, like)?, self.elem(nodes, Some(like)))
        } else {
            let shape = node.ints("shape").ok_or("it has no shape")?;
            let shape = shape.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>();
            (Extent::Known(shape.ok_or("its shape is negative")?), self.elem(nodes, None))
        };
        let mut numbers = Numbers::new(nodes, &extent, self.seed);
        let drawn = if node.op.name.starts_with("RandomNormal") {
            let normal = numbers.normal(nodes);
            affine(nodes, normal, node.float("scale", 1.0), node.float("mean", 0.0))
        } else {
            let (low, high) = (node.float("low", 0.0), node.float("high", 1.0));
            let uniform = numbers.uniform(nodes);
            affine(nodes, uniform, high - low, low)
        };
        nodes.make("Cast", &[drawn], &[("to", i64::from(elem.number()).into())], made);
        Ok(())
    }

    fn bernoulli(&self, nodes: &mut Nodes<'_>, made: ValueId) -> Result<(), &'static str> {
        let probability = self.input(0)?;
        let elem = self.elem(nodes, Some(probability));
        let extent = extent(nodes, probability)?;
        let drawn = Numbers::new(nodes, &extent, self.seed).uniform(nodes);
        let probability = nodes.cast(probability, DataType::FLOAT);
        let chosen = nodes.op("Less", &[drawn, probability], &[]);
        nodes.make("Cast", &[chosen], &[("to", i64::from(elem.number()).into())], made);
        Ok(())
    }

    /// The largest of the logarithms with Gumbel noise is one draw. Input `[batch, classes]`, output
    /// `[batch, draws]`.
    fn multinomial(&self, nodes: &mut Nodes<'_>, made: ValueId) -> Result<(), &'static str> {
        let logits = self.input(0)?;
        let elem = match self.node.attribute("dtype") {
            Some(_) => self.elem(nodes, None),
            None => DataType::INT32,
        };
        let draws = self.node.int("sample_size", 1);
        let extent = match extent(nodes, logits)? {
            Extent::Known(shape) => {
                let [batch, classes] = shape[..] else { return Err("its input is no matrix") };
                let draws = usize::try_from(draws).map_err(|_| "its sample size is negative")?;
                Extent::Known(vec![batch, draws, classes])
            }
            Extent::Runtime { count, shape } => {
                let [first, second] = [0, 1].map(|at| nodes.ints(&[at]));
                let batch = nodes.op("Gather", &[shape, first], &[]);
                let classes = nodes.op("Gather", &[shape, second], &[]);
                let each = nodes.ints(&[draws]);
                let shape = nodes.op("Concat", &[batch, each, classes], &[("axis", 0i64.into())]);
                let each = nodes.int(draws);
                Extent::Runtime { count: nodes.op("Mul", &[count, each], &[]), shape }
            }
        };
        let noise = Numbers::new(nodes, &extent, self.seed).gumbel(nodes);
        let logits = nodes.cast(logits, DataType::FLOAT);
        let logits = nodes.unsqueeze(logits, 1);
        let sum = nodes.op("Add", &[noise, logits], &[]);
        let attributes = [("axis", 2i64.into()), ("keepdims", 0i64.into())];
        let drawn = nodes.op("ArgMax", &[sum], &attributes);
        nodes.make("Cast", &[drawn], &[("to", i64::from(elem.number()).into())], made);
        Ok(())
    }

    /// `Dropout` of opset 12 and later, and those of com.microsoft: what is kept is divided by the
    /// probability that it is.
    fn dropout(&self, nodes: &mut Nodes<'_>) -> Result<(), &'static str> {
        let node = self.node;
        let at = ratio_input(&node.op).ok_or("it drops nothing")?;
        let packed = node.op.name.starts_with("Bitmask");
        let mask = node.outputs().get(1).copied().flatten();
        if packed && mask.is_some_and(|mask| !nodes.model.value(mask).uses().is_empty()) {
            return Err("what it dropped is read as packed bits");
        }
        let mut data = self.input(0)?;
        let elem = nodes.model.value(data).elem().unwrap_or(DataType::FLOAT);
        let extent = extent(nodes, data)?;
        let drawn = Numbers::new(nodes, &extent, self.seed).uniform(nodes);
        let (ratio, scale) = self.ratio(nodes, at);
        let dropped = nodes.op("Less", &[drawn, ratio], &[]);
        let mut kept = nodes.op("Not", &[dropped], &[]);
        let mut scale = scale;
        // Not known before it runs: in training or not.
        if let Some(mode) = node.input(at + 1).filter(|&mode| truth(nodes.model, mode).is_none()) {
            let as_is = nodes.op("Not", &[mode], &[]);
            kept = nodes.op("Or", &[kept, as_is], &[]);
            let one = nodes.float(1.0);
            scale = nodes.op("Where", &[mode, scale, one], &[]);
        }
        let factor = nodes.cast(kept, DataType::FLOAT);
        let factor = nodes.op("Mul", &[factor, scale], &[]);
        let factor = nodes.cast(factor, elem);
        let (bias, residual) = match at {
            3 => (node.input(1), node.input(2)),
            _ => (None, None),
        };
        if let Some(bias) = bias {
            data = nodes.op("Add", &[data, bias], &[]);
        }
        let all = node.output(0).ok_or("only what it dropped is read")?;
        match residual {
            Some(residual) => {
                let product = nodes.op("Mul", &[data, factor], &[]);
                nodes.make("Add", &[product, residual], &[], all);
            }
            None => nodes.make("Mul", &[data, factor], &[], all),
        }
        if let Some(mask) = mask.filter(|_| !packed) {
            nodes.make("Identity", &[kept], &[], mask);
        }
        Ok(())
    }

    /// The share that is dropped and what the rest is multiplied by, float32.
    fn ratio(&self, nodes: &mut Nodes<'_>, at: usize) -> (ValueId, ValueId) {
        let given = self.node.input(at);
        let Some(ratio) = given.filter(|&value| number(nodes.model, value).is_none()) else {
            let known = given.and_then(|value| number(nodes.model, value)).unwrap_or(0.5);
            let scale = if known < 1.0 { 1.0 / (1.0 - known) } else { 0.0 };
            return (nodes.float(known), nodes.float(scale));
        };
        let ratio = nodes.cast(ratio, DataType::FLOAT);
        let one = nodes.float(1.0);
        let share = nodes.op("Sub", &[one, ratio], &[]);
        let least = nodes.float(1e-6);
        let share = nodes.op("Max", &[share, least], &[]);
        (ratio, nodes.op("Div", &[one, share], &[]))
    }
}
