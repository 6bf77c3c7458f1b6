//! Optional outputs, opened inside the model:
//!
//! ```text
//! o (optional)
//!   =>
//! o ─▶ OptionalHasElement ─▶ o.present
//! o.present ─▶ If { then: OptionalGetElement(o), else: nothing of that type } ─▶ o.value
//! ```
//!
//! ONNX Runtime hands an absent value to its callers as a tensor without memory, which bindings
//! cannot look at without falling over.

use modelopt_graph::{
    Attribute, AttributeValue, DataType, GraphId, Model, NewNode, Origin, Owner, Payload, Place,
    Tensor, Type, ValueId, ValueInfo,
};

/// What stands for an optional output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Name of the optional.
    pub(crate) output: String,
    /// Name of the output that tells whether there is a value.
    pub(crate) present: String,
    /// Name of the output that is the value, or something empty.
    pub(crate) value: String,
}

/// The model with its optional outputs opened; none where it has none.
pub(crate) fn opened(model: &Model) -> Option<(Model, Vec<Opened>)> {
    let main = model.main();
    let optionals: Vec<(usize, ValueId, Type)> = model
        .graph(main)
        .outputs
        .iter()
        .enumerate()
        .filter_map(|(place, info)| match info.ty.as_ref().map(|declared| &declared.ty) {
            Some(Type::Optional(of)) => Some((place, info.value, (**of).clone())),
            _ => None,
        })
        .collect();
    if optionals.is_empty() {
        return None;
    }
    let mut model = model.clone();
    model.retain_outputs(main, |place| !optionals.iter().any(|(other, ..)| *other == place));
    let all = optionals.into_iter().map(|(_, value, of)| open(&mut model, value, &of)).collect();
    Some((model, all))
}

fn open(model: &mut Model, optional: ValueId, of: &Type) -> Opened {
    let main = model.main();
    let output = model.value(optional).name().to_owned();
    let present = insert(model, main, "OptionalHasElement", &[optional], Vec::new(), &output);
    let flag = Type::Tensor { elem: DataType::BOOL, shape: Some(Vec::new()) };
    add_output(model, main, present, Some(flag));
    let then = model.add_graph(Owner::Model);
    model.graph_mut(then).name = format!("{output}/there");
    let value = insert(model, then, "OptionalGetElement", &[optional], Vec::new(), &output);
    add_output(model, then, value, Some(of.clone()));
    let otherwise = model.add_graph(Owner::Model);
    model.graph_mut(otherwise).name = format!("{output}/missing");
    let (op, attributes) = nothing(of);
    let value = insert(model, otherwise, op, &[], attributes, &output);
    add_output(model, otherwise, value, Some(without_shape(of)));
    let branches = vec![
        Attribute::new("then_branch", AttributeValue::Graph(then)),
        Attribute::new("else_branch", AttributeValue::Graph(otherwise)),
    ];
    let value = insert(model, main, "If", &[present], branches, &output);
    add_output(model, main, value, Some(without_shape(of)));
    let name = |value: ValueId| model.value(value).name().to_owned();
    Opened { output, present: name(present), value: name(value) }
}

fn without_shape(ty: &Type) -> Type {
    ty.elem().map_or_else(|| ty.clone(), Type::tensor)
}

/// The node that makes something empty of a type.
fn nothing(ty: &Type) -> (&'static str, Vec<Attribute>) {
    if let Type::Sequence(of) = ty {
        let elem = of.elem().unwrap_or(DataType::FLOAT);
        return ("SequenceEmpty", vec![Attribute::new("dtype", i64::from(elem.number()))]);
    }
    let elem = ty.elem().unwrap_or(DataType::FLOAT);
    let payload = match elem {
        DataType::STRING => Payload::Strings(Vec::new()),
        _ => Payload::Dense(bytes::Bytes::new()),
    };
    let tensor = Tensor::new(elem, vec![0], payload);
    let attributes = tensor.into_iter().map(|tensor| Attribute::new("value", tensor)).collect();
    ("Constant", attributes)
}

fn insert(
    model: &mut Model,
    graph: GraphId,
    op: &str,
    inputs: &[ValueId],
    attributes: Vec<Attribute>,
    base: &str,
) -> ValueId {
    let name = model.fresh_name(&format!("{base}/{op}"));
    let value = model.add_value(name.clone());
    let node = NewNode::onnx(format!("{name}_node"), op, inputs, value, attributes);
    model.insert(node, Place::Back(graph));
    value
}

fn add_output(model: &mut Model, graph: GraphId, value: ValueId, ty: Option<Type>) {
    model.add_output(graph, ValueInfo { value, ty: ty.map(Into::into), origin: Origin::NONE });
}

#[cfg(test)]
mod tests {
    use modelopt_graph::verify;
    use xtask::testdata::fixture;

    use super::*;

    #[test]
    fn an_optional_output_becomes_two() {
        let load = |name| modelopt_onnx::load(&fixture(format!("outputs/{name}.onnx"))).unwrap();
        let (model, all) = opened(&load("optional_missing")).unwrap();
        verify::check(&model).unwrap();
        assert_eq!(
            all.iter().map(|one| one.output.as_str()).collect::<Vec<_>>(),
            ["there", "missing"]
        );
        let outputs = crate::graph_outputs(&model);
        let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names.len(), 5);
        assert!(names.contains(&all[1].present.as_str()) && names.contains(&all[1].value.as_str()));
        assert!(opened(&load("sequence")).is_none());
    }
}
