//! What a node looks like in 16 bits, by the schema of its operator at the model's version and by
//! type inference; nothing here is a list of operators that happen to work.
//!
//! Operators that make or turn types by an attribute, or for which more is to say than their
//! schema does, are handled one by one: see [`form`].

use modelopt_graph::schema::{self, FormalOption, OpSchema, TypeRef};
use modelopt_graph::{AttributeValue, DataType, Model, Node, NodeId, Type, ValueId, infer};

use crate::layers;
use crate::plan::Precision;

/// How a node takes one of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// As it is: it is no float32, or it has to be one.
    Fixed,
    /// In 16 bits.
    Narrow,
    /// In either type, whichever it is made in.
    Either,
}

/// A node in 16 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// One entry per input.
    pub(crate) inputs: Vec<Slot>,
    /// Which outputs are of 16 bits then.
    pub(crate) outputs: Vec<bool>,
    /// The attribute that says so, where one does.
    pub(crate) attribute: Option<&'static str>,
}

impl Form {
    /// Whether the node is the same in either type, but for what it reads.
    pub(crate) fn only_follows(&self) -> bool {
        !self.outputs.contains(&true) && !self.inputs.contains(&Slot::Narrow)
    }
}

/// What can be done to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has nothing to do with float32.
    Unconcerned,
    /// It reads or makes float32 and has to.
    Fixed(String),
    /// `If`, `Loop` or `Scan`: what goes through it is decided value by value.
    Control,
    /// It can be of 16 bits.
    Free(Form),
}

/// Inputs that steer an operator rather than being computed with, and lose more than is gained:
/// coordinates and scales.
const STEERING: &[(&str, usize)] =
    &[("GridSample", 1), ("Resize", 1), ("Resize", 2), ("Dropout", 1)];

/// Whether a value is a dense float32 tensor.
pub(crate) fn is_float(model: &Model, value: ValueId) -> bool {
    let known = model.value(value);
    match (known.constant(), known.ty()) {
        (Some(modelopt_graph::Constant::Dense(tensor)), _) => tensor.dtype() == DataType::FLOAT,
        (Some(modelopt_graph::Constant::Sparse(_)), _) => false,
        (None, ty) => ty.and_then(Type::elem) == Some(DataType::FLOAT),
    }
}

/// What a node looks like in 16 bits. Types must be inferred.
pub(crate) fn form(model: &Model, id: NodeId, to: Precision) -> Kind {
    let node = model.node(id);
    let values = || node.inputs().iter().chain(node.outputs()).flatten().copied();
    let concerned = values().any(|value| is_float(model, value));
    if matches!(node.op.name.as_str(), "If" | "Loop" | "Scan") && node.op.is_onnx() {
        return Kind::Control;
    }
    if !concerned {
        return Kind::Unconcerned;
    }
    if model.called_function(id).is_some() {
        return Kind::Fixed("calls a model-local function, whose body stays float32".to_owned());
    }
    if !node.op.is_onnx() {
        return Kind::Fixed(format!("{} is not an operator of ai.onnx", node.op));
    }
    let version = model.opset(node.graph(), "").unwrap_or(1);
    let Some(schema) = schema::lookup("", &node.op.name, version) else {
        return Kind::Fixed(format!("opset {version} has no {}", node.op));
    };
    if values().any(|value| is_container(model, value)) {
        return Kind::Fixed(
            "sequences, optionals, maps and sparse tensors stay float32".to_owned(),
        );
    }
    if schema.random && node.op.name != "Dropout" {
        return Kind::Fixed("random numbers are drawn as before".to_owned());
    }
    if matches!(node.op.name.as_str(), "QuantizeLinear" | "DequantizeLinear")
        || layers::is_quantized_operator(model, id)
    {
        return Kind::Fixed("already quantized: its scales are float32".to_owned());
    }
    match node.op.name.as_str() {
        "Cast" => cast(model, node, version, to),
        "Constant" => Kind::Unconcerned,
        "BitCast" => Kind::Fixed("it reads the bits of a float32".to_owned()),
        "ConstantOfShape" => by_attribute(node, schema, to, "value"),
        "EyeLike" => by_attribute(node, schema, to, "dtype"),
        _ => by_schema(model, id, schema, to),
    }
}

/// Whether a value is something else than a dense tensor.
fn is_container(model: &Model, value: ValueId) -> bool {
    let ty = model.value(value).ty();
    ty.is_some_and(|ty| !matches!(ty, Type::Tensor { .. }))
}

/// The element type that a `Cast` makes.
pub(crate) fn cast_target(node: &Node, version: i64) -> Option<DataType> {
    match node.attribute("to")? {
        AttributeValue::Int(number) => i32::try_from(*number).ok().map(DataType::from_number),
        AttributeValue::String(name) if version < 6 => {
            DataType::from_name(&std::str::from_utf8(name).ok()?.to_lowercase())
        }
        _ => None,
    }
}

fn cast(model: &Model, node: &Node, version: i64, to: Precision) -> Kind {
    let from_float = node.input(0).is_some_and(|value| is_float(model, value));
    let from = node.input(0).and_then(|value| model.value(value).elem());
    let form = |input, output| {
        Kind::Free(Form {
            inputs: vec![input],
            outputs: vec![output],
            attribute: Some("to").filter(|_| output),
        })
    };
    match cast_target(node, version) {
        Some(DataType::STRING) => Kind::Fixed("texts show every digit".to_owned()),
        Some(DataType::FLOAT) if from_float => form(Slot::Narrow, true),
        Some(DataType::FLOAT) if from == Some(DataType::STRING) => {
            Kind::Fixed("a text is read as float32".to_owned())
        }
        // Whoever wants 16 bits reads them before this node.
        Some(DataType::FLOAT) if from == Some(to.dtype()) => Kind::Unconcerned,
        Some(DataType::FLOAT) => form(Slot::Fixed, true),
        _ => form(Slot::Either, false),
    }
}

/// An operator that makes float32 because an attribute says so, or because none does.
fn by_attribute(node: &Node, schema: &OpSchema, to: Precision, name: &'static str) -> Kind {
    let allowed = schema.formal_output(0).is_some_and(|formal| schema.allows(formal, to.dtype()));
    if !allowed {
        return Kind::Fixed(format!("{} does not make {} at this opset", node.op, to.dtype()));
    }
    Kind::Free(Form {
        inputs: vec![Slot::Either; node.inputs().len()],
        outputs: vec![true],
        attribute: Some(name),
    })
}

fn by_schema(model: &Model, id: NodeId, schema: &OpSchema, to: Precision) -> Kind {
    let node = model.node(id);
    let mut inputs = Vec::with_capacity(node.inputs().len());
    for (index, value) in node.inputs().iter().enumerate() {
        let Some(formal) = schema.formal_input(index) else {
            return Kind::Fixed("it has more inputs than its operator".to_owned());
        };
        let Some(value) = *value else {
            inputs.push(Slot::Fixed);
            continue;
        };
        let variable = matches!(formal.ty, TypeRef::Variable(_));
        if variable && model.value(value).elem().is_none() && schema.allows(formal, DataType::FLOAT)
        {
            let name = model.value(value).name();
            return Kind::Fixed(format!("what '{name}' is can only be known at run time"));
        }
        let each_its_own = formal.option == FormalOption::Variadic && !formal.homogeneous;
        let narrow = variable
            && !each_its_own
            && is_float(model, value)
            && schema.allows(formal, to.dtype())
            && !STEERING.contains(&(schema.name, index));
        inputs.push(if narrow { Slot::Narrow } else { Slot::Fixed });
    }
    let narrow: Vec<ValueId> = chosen(node, &inputs, Slot::Narrow);
    if narrow.is_empty() {
        return Kind::Fixed(format!("{} has no form in {} at this opset", node.op, to.dtype()));
    }
    if chosen(node, &inputs, Slot::Fixed).iter().any(|value| narrow.contains(value)) {
        return Kind::Fixed("it reads one value in two roles".to_owned());
    }
    let assumed = narrow.iter().map(|&value| (value, narrowed(model, value, to)));
    let inferred = infer::infer_node_if(model, id, assumed);
    let mut outputs = Vec::with_capacity(node.outputs().len());
    for (index, value) in node.outputs().iter().enumerate() {
        let Some(value) = value.filter(|&value| is_float(model, value)) else {
            outputs.push(false);
            continue;
        };
        match inferred.get(index).and_then(Option::as_ref).and_then(Type::elem) {
            Some(elem) if elem == to.dtype() => outputs.push(true),
            Some(DataType::FLOAT) => outputs.push(false),
            _ => {
                let name = model.value(value).name();
                return Kind::Fixed(format!("what '{name}' would be is not known"));
            }
        }
    }
    if outputs.contains(&true) || narrow.len() > 1 {
        return Kind::Free(Form { inputs, outputs, attribute: None });
    }
    // What reads one tensor and makes none of floats (a shape, a place, a test) takes it as it is.
    for slot in &mut inputs {
        if *slot == Slot::Narrow {
            *slot = Slot::Either;
        }
    }
    Kind::Free(Form { inputs, outputs, attribute: None })
}

fn chosen(node: &Node, slots: &[Slot], wanted: Slot) -> Vec<ValueId> {
    let inputs = node.inputs().iter().zip(slots);
    inputs.filter(|(_, slot)| **slot == wanted).filter_map(|(value, _)| *value).collect()
}

/// The type of a float32 value, in 16 bits.
pub(crate) fn narrowed(model: &Model, value: ValueId, to: Precision) -> Type {
    let shape = match (model.value(value).ty(), model.value(value).constant()) {
        (Some(Type::Tensor { shape, .. }), _) => shape.clone(),
        (_, Some(modelopt_graph::Constant::Dense(tensor))) => {
            Some(tensor.shape().iter().map(|&size| modelopt_graph::Dim::Fixed(size)).collect())
        }
        _ => None,
    };
    Type::Tensor { elem: to.dtype(), shape }
}

/// Whether the model's opset has casts to this type at all, or why nothing can be done.
pub(crate) fn available(model: &Model, to: Precision) -> Result<(), String> {
    let Some(version) = model.opset(model.main(), "") else {
        return Err("the model imports no operators of ai.onnx, and so no Cast".to_owned());
    };
    let allowed = schema::lookup("", "Cast", version).is_some_and(|cast| {
        cast.formal_output(0).is_some_and(|output| cast.allows(output, to.dtype()))
    });
    if allowed { Ok(()) } else { Err(format!("opset {version} has no {}", to.dtype())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Build, float, noise};

    fn kind_of(b: &mut Build, value: ValueId, to: Precision) -> Kind {
        infer::infer(&mut b.model);
        let node = b.model.producer_node(value).unwrap();
        form(&b.model, node, to)
    }

    fn free(kind: Kind) -> Form {
        match kind {
            Kind::Free(form) => form,
            other => panic!("{other:?}"),
        }
    }

    fn why(kind: Kind) -> String {
        match kind {
            Kind::Fixed(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_schema_at_the_models_opset_decides() {
        for (opset, to, possible) in [
            (17, Precision::Fp16, true),
            (17, Precision::Bf16, true),
            (12, Precision::Fp16, true),
            (12, Precision::Bf16, false),
        ] {
            let mut b = Build::new(opset);
            let x = b.input("x", float(&[2, 4]));
            let w = b.weight("W", &[4, 4], &noise(16, 1));
            let y = b.node("MatMul", &[x, w], &[]);
            b.output(y, float(&[2, 4]));
            let kind = kind_of(&mut b, y, to);
            assert_eq!(matches!(kind, Kind::Free(_)), possible, "{opset} {to:?} {kind:?}");
            assert_eq!(available(&b.model, to).is_ok(), possible);
        }
    }

    #[test]
    fn inputs_that_steer_stay() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[1, 2, 4, 4]));
        let roi = b.weight("roi", &[0], &[]);
        let scales = b.weight("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
        let y = b.node("Resize", &[x, roi, scales], &[]);
        b.output(y, float(&[1, 2, 8, 8]));
        let form = free(kind_of(&mut b, y, Precision::Fp16));
        assert_eq!(form.inputs, [Slot::Narrow, Slot::Fixed, Slot::Fixed]);
        assert_eq!(form.outputs, [true]);
    }

    #[test]
    fn statistics_keep_the_type_their_attribute_says() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 8]));
        let scale = b.weight("scale", &[8], &[1.0; 8]);
        let y = b.node("LayerNormalization", &[x, scale], &[]);
        b.output(y, float(&[2, 8]));
        let node = b.model.producer_node(y).unwrap();
        let mean = b.model.add_value("mean");
        let mut with_mean = b.model.node(node).clone();
        with_mean.name = "norm".into();
        let outputs = vec![Some(y), Some(mean)];
        b.model.remove(node);
        b.model.insert(
            modelopt_graph::NewNode {
                name: "norm".into(),
                op: with_mean.op.clone(),
                inputs: vec![Some(x), Some(scale)],
                outputs,
                attributes: Vec::new(),
                origin: modelopt_graph::Origin::NONE,
            },
            modelopt_graph::Place::Back(b.model.main()),
        );
        let form = free(kind_of(&mut b, y, Precision::Fp16));
        assert_eq!(form.outputs, [true, false]);
    }

    #[test]
    fn what_reads_without_computing_follows() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 4]));
        let shape = b.node("Shape", &[x], &[]);
        let place = b.node("ArgMax", &[x], &[]);
        let whole = b.node("Cast", &[x], &[("to", 7.into())]);
        for value in [shape, place, whole] {
            b.output(value, Type::tensor(DataType::INT64));
            assert!(free(kind_of(&mut b, value, Precision::Fp16)).only_follows());
        }
    }

    #[test]
    fn what_cannot_be_narrow_says_why() {
        let mut b = Build::new(19);
        let x = b.input("x", float(&[2, 4]));
        let scale = b.weight("scale", &[], &[0.5]);
        let quantized = b.node("QuantizeLinear", &[x, scale], &[]);
        let sequence = b.node("SequenceConstruct", &[x, x], &[]);
        let random = b.node("RandomNormalLike", &[x], &[]);
        let text = b.node("Cast", &[x], &[("to", 8.into())]);
        let unknown = b.node("NoSuchOperator", &[x], &[]);
        for (value, expected) in [
            (quantized, "already quantized"),
            (sequence, "sequences"),
            (random, "random"),
            (text, "texts"),
            (unknown, "opset 19 has no NoSuchOperator"),
        ] {
            let reason = why(kind_of(&mut b, value, Precision::Fp16));
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
