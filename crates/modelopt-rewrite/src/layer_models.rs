//! One layer as a model of its own, to be measured.

use std::fmt::Write;

use modelopt_graph::{
    Constant, DataType, Dim, Model, ModelInfo, NewNode, NodeId, Operator, OpsetImport, Origin,
    Place, Type, ValueInfo, infer,
};

use crate::apply::apply_with;
use crate::eligibility::{Look, candidates};
use crate::forms::Scheme;
use crate::layers;
use crate::memo::Memo;
use crate::plan::{Numerics, Plan, PlannedLayer};
use crate::policy;

/// A layer as a model of its own.
#[derive(Clone, Debug)]
pub struct Isolated {
    /// The model: the node, its constants, and everything else it reads as inputs.
    pub model: Model,
    /// Name of the layer in the whole model.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Names, element types and shapes of the inputs.
    pub inputs: Vec<(String, DataType, Vec<usize>)>,
    /// What tells layers apart that take different time: operator, attributes, shapes.
    pub key: String,
}

/// The layers that take other time as int8, products and tables, each as a model of its own, where `shapes` of the
/// main graph's inputs, by name, determine theirs; the names of the others.
///
/// The model must be prepared the way it was when it was planned.
pub fn isolate(model: &Model, shapes: &[(String, Vec<usize>)]) -> (Vec<Isolated>, Vec<String>) {
    let mut shaped = model.clone();
    for info in model.graph(model.main()).inputs.clone() {
        let name = model.value(info.value).name();
        let known = shapes.iter().find(|(input, _)| input == name);
        if let (Some((_, shape)), Some(elem)) = (known, model.value(info.value).elem()) {
            shaped.set_type(info.value, Some(fixed(elem, shape)));
        }
    }
    infer::infer(&mut shaped);
    let (mut isolated, mut unknown) = (Vec::new(), Vec::new());
    // Alone, a layer has none of what would make ranges pay.
    let mut ladder = Scheme::default_ladder();
    ladder.retain(|scheme| !scheme.needs_ranges());
    for candidate in candidates(&shaped, &Look::new(ladder.iter().copied(), 0, 0.0)) {
        // What runtimes do once, while they load, takes no time.
        let operator = &shaped.node(candidate.layer.node).op.name;
        let takes_time = |scheme: &&Scheme| {
            let in_every_run = scheme.quantizes_activations() || scheme.has_at_load(operator);
            in_every_run && candidate.possible(**scheme).is_ok()
        };
        if !ladder.iter().any(|scheme| takes_time(&scheme)) {
            continue;
        }
        let name = candidate.layer.id;
        match alone(&shaped, candidate.layer.node, &name) {
            Some(layer) => isolated.push(layer),
            None => unknown.push(name),
        }
    }
    (isolated, unknown)
}

fn fixed(elem: DataType, shape: &[usize]) -> Type {
    Type::Tensor { elem, shape: Some(shape.iter().map(|&size| Dim::Fixed(size)).collect()) }
}

/// Element type and shape of a value, if all is known.
fn known(ty: Option<&Type>) -> Option<(DataType, Vec<usize>)> {
    let ty = ty?;
    let shape = ty.shape()?.iter().map(Dim::fixed).collect::<Option<Vec<usize>>>()?;
    Some((ty.elem()?, shape))
}

fn alone(model: &Model, id: NodeId, name: &str) -> Option<Isolated> {
    let node = model.node(id);
    let version = model.opset(node.graph(), "")?;
    let import = OpsetImport { domain: String::new(), version, origin: Origin::NONE };
    let mut own =
        Model::new(ModelInfo { ir_version: 8, opsets: vec![import], ..Default::default() });
    let graph = own.main();
    let mut inputs = Vec::new();
    let mut operands = Vec::new();
    let mut key = format!("{}-{version}", node.op);
    for operand in node.inputs() {
        let Some(operand) = operand.map(|operand| model.resolve(operand)) else {
            operands.push(None);
            continue;
        };
        let value = own.add_value(model.value(operand).name());
        operands.push(Some(value));
        if let Some(tensor) = model.constant(operand) {
            let _ = write!(key, " {}{:?}", tensor.dtype(), tensor.shape());
            own.set_constant(graph, value, Constant::Dense(tensor));
        } else {
            let (elem, shape) = known(model.value(operand).ty())?;
            let _ = write!(key, " <{elem}{shape:?}>");
            own.add_input(graph, declared(value, fixed(elem, &shape)));
            inputs.push((model.value(operand).name().to_owned(), elem, shape));
        }
    }
    let output = node.output(0)?;
    let value = own.add_value(model.value(output).name());
    let ty = model.value(output).ty().cloned()?;
    for attribute in &node.attributes {
        let _ = write!(key, " {}={:?}", attribute.name, attribute.value);
    }
    own.insert(
        NewNode {
            name: node.name.clone(),
            op: Operator::onnx(&node.op.name),
            inputs: operands,
            outputs: vec![Some(value)],
            attributes: node.attributes.clone(),
            origin: Origin::NONE,
        },
        Place::Back(graph),
    );
    own.add_output(graph, declared(value, ty));
    infer::infer(&mut own);
    Some(Isolated { model: own, name: name.to_owned(), op: node.op.name.clone(), inputs, key })
}

fn declared(value: modelopt_graph::ValueId, ty: Type) -> ValueInfo {
    ValueInfo { value, ty: Some(ty.into()), origin: Origin::NONE }
}

impl Isolated {
    /// The layer in another scheme; none where that is not possible.
    pub fn with(&self, scheme: Scheme, numerics: Numerics) -> Option<Model> {
        self.with_memo(scheme, numerics, &Memo::none())
    }

    /// The same with weights that may be quantized already.
    pub(crate) fn with_memo(
        &self,
        scheme: Scheme,
        numerics: Numerics,
        memo: &Memo,
    ) -> Option<Model> {
        let layer = layers::find(&self.model, 0).into_iter().next()?;
        let mut plan = Plan::new(numerics);
        plan.layers.push(PlannedLayer::new(layer.id, scheme));
        let plan = policy::plan_from(&self.model, &plan).ok()?;
        let mut model = self.model.clone();
        apply_with(&mut model, &plan, memo).ok()?;
        Some(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Build, boolean, float, noise};
    use modelopt_graph::AttributeValue;

    #[test]
    fn a_layer_in_a_branch_stands_alone() {
        let mut b = Build::new(17);
        let symbol = Some(vec![Dim::Symbol("n".into()), Dim::Fixed(32)]);
        let x = b.input("x", Type::Tensor { elem: DataType::FLOAT, shape: symbol });
        let condition = b.input("c", boolean());
        let w = b.weight("W", &[32, 64], &noise(2048, 2));
        let (then_body, ()) =
            b.body(|b, graph| (b.named_node_in(graph, "MatMul", &[x, w], "t"), ()));
        let (else_body, ()) =
            b.body(|b, graph| (b.named_node_in(graph, "MatMul", &[x, w], "e"), ()));
        let y = b.if_node(condition, then_body, else_body);
        b.output(y, float(&[4, 64]));
        let (layers, unknown) = isolate(&b.model, &[("x".to_owned(), vec![4, 32])]);
        assert!(unknown.is_empty(), "{unknown:?}");
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[0].inputs, [("x".to_owned(), DataType::FLOAT, vec![4, 32])]);
        assert_eq!(layers[0].key, layers[1].key);
        let ops = |model: &Model| -> Vec<String> {
            model.walk().into_iter().map(|node| model.node(node).op.name.clone()).collect()
        };
        assert_eq!(ops(&layers[0].model), ["MatMul"]);
        let dynamic = layers[0].with(Scheme::INT8_DYNAMIC, Numerics::default()).unwrap();
        assert!(ops(&dynamic).contains(&"MatMulInteger".to_owned()));
        assert!(layers[0].with(Scheme::KEEP, Numerics::default()).is_some());
    }

    #[test]
    fn a_layer_whose_shape_is_not_known_is_named() {
        let mut b = Build::new(17);
        let x = b.input("x", Type::tensor(DataType::FLOAT));
        let w = b.weight("W", &[32, 64], &noise(2048, 2));
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, Type::tensor(DataType::FLOAT));
        let (layers, unknown) = isolate(&b.model, &[]);
        assert!(layers.is_empty());
        assert_eq!(unknown, ["matmul_out_node"]);
    }

    #[test]
    fn attributes_tell_layers_apart() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[1, 8, 8, 8]));
        let w = b.weight("W", &[8, 8, 3, 3], &noise(576, 2));
        let pads: [(&str, AttributeValue); 1] = [("pads", vec![1, 1, 1, 1].into())];
        let y = b.node("Conv", &[x, w], &pads);
        let z = b.node("Conv", &[y, w], &[]);
        b.output(z, float(&[1, 8, 6, 6]));
        let (layers, _) = isolate(&b.model, &[]);
        assert_eq!(layers.len(), 2);
        assert_ne!(layers[0].key, layers[1].key);
    }
}
