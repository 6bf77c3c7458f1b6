//! One-node models written as text, and what is inferred for them as text.
//!
//! An operator is its name and attributes: `Concat axis=i1`, with values `i1`, `f0.5`, `sSAME`,
//! `[1,2]`, `f[1,2]`. An input is a type as [`Type`] prints it (spaces left out), such as
//! `float[n,3,?]`, `float[..]`, `seq(float[2])`, a constant `int64{1,2}` or `int64=3`, or `-`.

use std::sync::Arc;

use crate::model::Constant;
use crate::{
    Attribute, AttributeValue, DataType, Dim, Model, ModelInfo, NewNode, Operator, OpsetImport,
    Origin, Place, Tensor, Type, ValueId, ValueInfo,
};

/// Checks what is inferred at operator set 17.
pub(super) fn check(op: &str, inputs: &str, outputs: &str) {
    at(17, op, inputs, outputs);
}

/// Checks what is inferred at an operator set.
pub(super) fn at(version: i64, op: &str, inputs: &str, outputs: &str) {
    let mut model = Model::new(info(version));
    let inputs: Vec<Option<ValueId>> = inputs
        .split("; ")
        .filter(|text| !text.is_empty())
        .enumerate()
        .map(|(index, text)| input(&mut model, &format!("x{index}"), text))
        .collect();
    let count = outputs.split("; ").count();
    let results: Vec<ValueId> = (0..count).map(|i| model.add_value(format!("y{i}"))).collect();
    let node = add(&mut model, op, &inputs, &results);
    let types = super::infer_node(&model, node);
    let found: Vec<String> = types.iter().map(|ty| print(ty.as_ref())).collect();
    assert_eq!(found.join("; "), outputs, "{op} at {version}");
    super::infer(&mut model);
    for (value, ty) in results.iter().zip(&types) {
        assert_eq!(model.value(*value).ty(), ty.as_ref(), "{op} at {version}");
    }
}

/// Nodes one after another, named by their one output.
pub(super) struct Chain {
    model: Model,
}

impl Chain {
    /// With one input `x`.
    pub(super) fn new(x: &str) -> Self {
        let mut model = Model::new(info(17));
        input(&mut model, "x", x);
        Chain { model }
    }

    pub(super) fn constant(&mut self, name: &str, text: &str) {
        input(&mut self.model, name, text);
    }

    pub(super) fn add(&mut self, output: &str, op: &str, inputs: &[&str]) {
        let inputs: Vec<_> = inputs.iter().map(|name| Some(self.value(name))).collect();
        let result = self.model.add_value(output);
        add(&mut self.model, op, &inputs, &[result]);
    }

    pub(super) fn infer(&mut self, output: &str) -> String {
        super::infer(&mut self.model);
        print(self.model.value(self.value(output)).ty())
    }

    fn value(&self, name: &str) -> ValueId {
        self.model.values().find(|&value| self.model.value(value).name() == name).unwrap()
    }
}

fn print(ty: Option<&Type>) -> String {
    ty.map_or("-".into(), ToString::to_string)
}

fn info(version: i64) -> ModelInfo {
    let import = |domain: &str, version| OpsetImport {
        domain: domain.into(),
        version,
        origin: Origin::NONE,
    };
    ModelInfo {
        ir_version: 10,
        opsets: vec![import("", version), import("ai.onnx.ml", 3), import("com.microsoft", 1)],
        ..ModelInfo::default()
    }
}

fn add(
    model: &mut Model,
    op: &str,
    inputs: &[Option<ValueId>],
    outputs: &[ValueId],
) -> crate::NodeId {
    let mut words = op.split(' ');
    let name = words.next().unwrap();
    let (domain, name) = name.rsplit_once('.').unwrap_or(("", name));
    let attributes = words
        .map(|word| {
            let (name, value) = word.split_once('=').unwrap();
            Attribute::new(name, attribute(value))
        })
        .collect();
    let node = NewNode {
        name: String::new(),
        op: Operator { domain: domain.into(), ..Operator::onnx(name) },
        inputs: inputs.to_vec(),
        outputs: outputs.iter().copied().map(Some).collect(),
        attributes,
        origin: Origin::NONE,
    };
    let main = model.main();
    model.insert(node, Place::Back(main))
}

fn attribute(text: &str) -> AttributeValue {
    if let Some(list) = text.strip_prefix('[') {
        return numbers::<i64>(list.trim_end_matches(']')).into();
    }
    match text.split_at(1) {
        ("i", value) => AttributeValue::Int(value.parse().unwrap()),
        ("s", value) => value.into(),
        ("f", list) if list.starts_with('[') => {
            AttributeValue::Floats(numbers(list.trim_matches(['[', ']'])))
        }
        ("f", value) => AttributeValue::Float(value.parse().unwrap()),
        _ => panic!("attribute {text}"),
    }
}

fn numbers<T: std::str::FromStr>(list: &str) -> Vec<T> {
    list.split(',')
        .filter(|item| !item.is_empty())
        .map(|item| item.parse().unwrap_or_else(|_| panic!("number {item}")))
        .collect()
}

fn input(model: &mut Model, name: &str, text: &str) -> Option<ValueId> {
    if text == "-" {
        return None;
    }
    let main = model.main();
    let value = model.add_value(name);
    let constant = match (text.split_once('{'), text.split_once('=')) {
        (Some((elem, list)), _) => {
            let list = list.trim_end_matches('}');
            let count = list.split(',').filter(|item| !item.is_empty()).count();
            Some(tensor(elem, vec![count], list))
        }
        (_, Some((elem, number))) => Some(tensor(elem, Vec::new(), number)),
        _ => None,
    };
    if let Some(tensor) = constant {
        model.set_constant(main, value, Constant::Dense(Arc::new(tensor)));
    } else {
        let ty = Some(parse(text).into());
        model.add_input(main, ValueInfo { value, ty, origin: Origin::NONE });
    }
    Some(value)
}

fn tensor(elem: &str, shape: Vec<usize>, list: &str) -> Tensor {
    match elem {
        "int64" => Tensor::of(shape, &numbers::<i64>(list)),
        "int32" => Tensor::of(shape, &numbers::<i32>(list)),
        "float" => Tensor::of(shape, &numbers::<f32>(list)),
        _ => panic!("constant of {elem}"),
    }
    .unwrap()
}

fn parse(text: &str) -> Type {
    let text = text.trim();
    for (prefix, wrap) in [
        ("seq(", Type::Sequence as fn(Box<Type>) -> Type),
        ("optional(", Type::Optional as fn(Box<Type>) -> Type),
    ] {
        if let Some(inner) = text.strip_prefix(prefix) {
            return wrap(parse(&inner[..inner.len() - 1]).into());
        }
    }
    let (elem, dims) = text.split_once('[').unwrap();
    let elem = DataType::from_name(elem).unwrap();
    let dims = dims.trim_end_matches(']');
    let dim = |text: &str| match text {
        "?" => Dim::Unknown,
        text => text.parse().map_or_else(|_| Dim::Symbol(text.into()), Dim::Fixed),
    };
    let shape = match dims {
        ".." => None,
        "" => Some(Vec::new()),
        dims => Some(dims.split(',').map(dim).collect()),
    };
    Type::Tensor { elem, shape }
}
