//! Small models for this crate's own tests.

use std::sync::Arc;

use crate::model::Constant;
use crate::{
    DataType, Model, ModelInfo, NewNode, Operator, OpsetImport, Origin, Place, Tensor, Type,
    ValueId, ValueInfo,
};

pub(crate) fn info() -> ModelInfo {
    ModelInfo {
        ir_version: 8,
        opsets: vec![OpsetImport { domain: String::new(), version: 17, origin: Origin::NONE }],
        ..ModelInfo::default()
    }
}

pub(crate) fn float(value: ValueId) -> ValueInfo {
    ValueInfo { value, ty: Some(Type::tensor(DataType::FLOAT).into()), origin: Origin::NONE }
}

pub(crate) fn node(op: &str, inputs: &[ValueId], outputs: &[ValueId]) -> NewNode {
    NewNode {
        name: String::new(),
        op: Operator::onnx(op),
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: outputs.iter().copied().map(Some).collect(),
        attributes: Vec::new(),
        origin: Origin::NONE,
    }
}

/// `y = MatMul(x, W)` with a 2x2 weight; returns the model and `W`.
pub(crate) fn linear() -> (Model, ValueId) {
    let mut model = Model::new(info());
    let main = model.main();
    let [x, w, y] = ["x", "W", "y"].map(|name| model.add_value(name));
    model.add_input(main, float(x));
    let weight = Tensor::of(vec![2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
    model.set_constant(main, w, Constant::Dense(Arc::new(weight)));
    model.insert(node("MatMul", &[x, w], &[y]), Place::Back(main));
    model.add_output(main, float(y));
    (model, w)
}
