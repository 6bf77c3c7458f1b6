//! A small builder of models for this crate's tests.

pub(crate) mod integers;
pub(crate) mod interpreter;

use std::sync::Arc;

use modelopt_graph::{
    Attribute, AttributeValue, Constant, DataType, Dim, GraphId, Model, ModelInfo, NewNode,
    Operator, OpsetImport, Origin, Owner, Place, Tensor, Type, ValueId, ValueInfo,
};

pub(crate) struct Build {
    pub(crate) model: Model,
}

pub(crate) fn float(shape: &[usize]) -> Type {
    Type::Tensor {
        elem: DataType::FLOAT,
        shape: Some(shape.iter().map(|&size| Dim::Fixed(size)).collect()),
    }
}

pub(crate) fn boolean() -> Type {
    Type::Tensor { elem: DataType::BOOL, shape: Some(Vec::new()) }
}

/// Numbers that look like weights: a fixed sequence in -1..1.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 2.0 - 1.0
        })
        .collect()
}

impl Build {
    pub(crate) fn new(opset: i64) -> Self {
        let import = OpsetImport { domain: String::new(), version: opset, origin: Origin::NONE };
        let info = ModelInfo { ir_version: 8, opsets: vec![import], ..ModelInfo::default() };
        Build { model: Model::new(info) }
    }

    pub(crate) fn input(&mut self, name: &str, ty: Type) -> ValueId {
        let value = self.model.add_value(name);
        let info = ValueInfo { value, ty: Some(ty.into()), origin: Origin::NONE };
        self.model.add_input(self.model.main(), info);
        value
    }

    pub(crate) fn output(&mut self, value: ValueId, ty: Type) {
        let info = ValueInfo { value, ty: Some(ty.into()), origin: Origin::NONE };
        self.model.add_output(self.model.main(), info);
    }

    pub(crate) fn default(&mut self, value: ValueId, shape: &[usize], data: &[f32]) {
        let tensor = Tensor::of(shape.to_vec(), data).unwrap();
        self.model.set_constant(self.model.main(), value, Constant::Dense(Arc::new(tensor)));
    }

    pub(crate) fn weight(&mut self, name: &str, shape: &[usize], data: &[f32]) -> ValueId {
        let value = self.model.add_value(name);
        self.default(value, shape, data);
        value
    }

    pub(crate) fn int8_weight(&mut self, name: &str, shape: &[usize], data: &[i8]) -> ValueId {
        let value = self.model.add_value(name);
        let tensor = Tensor::of(shape.to_vec(), data).unwrap();
        self.model.set_constant(self.model.main(), value, Constant::Dense(Arc::new(tensor)));
        value
    }

    pub(crate) fn node(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: &[(&str, AttributeValue)],
    ) -> ValueId {
        let name = self.model.fresh_name(&format!("{}_out", op.to_lowercase()));
        self.node_in(self.model.main(), op, inputs, attributes, &name)
    }

    pub(crate) fn named_node_in(
        &mut self,
        graph: GraphId,
        op: &str,
        inputs: &[ValueId],
        output: &str,
    ) -> ValueId {
        self.node_in(graph, op, inputs, &[], output)
    }

    fn node_in(
        &mut self,
        graph: GraphId,
        op: &str,
        inputs: &[ValueId],
        attributes: &[(&str, AttributeValue)],
        output: &str,
    ) -> ValueId {
        let value = self.model.add_value(output);
        let attributes =
            attributes.iter().map(|(name, value)| Attribute::new(*name, value.clone())).collect();
        let node = NewNode {
            name: format!("{output}_node"),
            op: Operator::onnx(op),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![Some(value)],
            attributes,
            origin: Origin::NONE,
        };
        self.model.insert(node, Place::Back(graph));
        value
    }

    /// A nested graph with one output; `fill` returns the output and whatever the test needs.
    pub(crate) fn body<T>(
        &mut self,
        fill: impl FnOnce(&mut Self, GraphId) -> (ValueId, T),
    ) -> (GraphId, T) {
        let graph = self.model.add_graph(Owner::Model);
        let (value, rest) = fill(self, graph);
        self.model.add_output(graph, ValueInfo { value, ty: None, origin: Origin::NONE });
        (graph, rest)
    }

    pub(crate) fn if_node(&mut self, condition: ValueId, then: GraphId, other: GraphId) -> ValueId {
        let bodies = [("then_branch", then.into()), ("else_branch", other.into())];
        self.node("If", &[condition], &bodies)
    }

    /// `y = If(c, W-branch, other branch)` of `x: [4, 32]`: a product with `W: [32, 32]` in one branch, and
    /// another operator in the other, which reads `W` as well if it is a product. Gives `x`, `W` and `y`.
    pub(crate) fn branches(&mut self, other: &str) -> [ValueId; 3] {
        let x = self.input("x", float(&[4, 32]));
        let condition = self.input("c", boolean());
        let w = self.weight("W", &[32, 32], &noise(1024, 2));
        let read: &[ValueId] = if other == "MatMul" { &[x, w] } else { &[x] };
        let (then_body, ()) =
            self.body(|b, graph| (b.named_node_in(graph, "MatMul", &[x, w], "t"), ()));
        let (else_body, ()) = self.body(|b, graph| (b.named_node_in(graph, other, read, "e"), ()));
        let y = self.if_node(condition, then_body, else_body);
        self.output(y, float(&[4, 32]));
        [x, w, y]
    }

    pub(crate) fn ops(&self) -> Vec<String> {
        self.model.walk().into_iter().map(|node| self.model.node(node).op.name.clone()).collect()
    }

    /// The node that makes a value.
    pub(crate) fn maker(&self, value: ValueId) -> &modelopt_graph::Node {
        self.model.node(self.model.producer_node(value).unwrap())
    }

    /// Plans with the default rules and carries the plan out; returns the plan.
    pub(crate) fn quantized(&mut self, options: &crate::PlanOptions) -> crate::ExplainedPlan {
        modelopt_graph::infer::infer(&mut self.model);
        let plan = crate::plan(&self.model, options).unwrap();
        crate::apply(&mut self.model, &plan).unwrap();
        plan
    }

    /// Changes all layers, whatever the default rules say.
    pub(crate) fn quantized_as(&mut self, scheme: crate::Scheme) {
        modelopt_graph::infer::infer(&mut self.model);
        let mut plan = crate::plan(&self.model, &options(scheme)).unwrap();
        plan.layers.iter_mut().for_each(|layer| layer.scheme = scheme);
        let plan = crate::plan_from(&self.model, &plan).unwrap();
        crate::apply(&mut self.model, &plan).unwrap();
    }
}

/// Default rules for a scheme, without a threshold for small weights.
pub(crate) fn options(scheme: crate::Scheme) -> crate::PlanOptions {
    crate::PlanOptions {
        scheme: Some(scheme),
        min_weight_bytes: 0,
        ..crate::PlanOptions::default()
    }
}

/// What is seen of rows of `channels` numbers each in one sample.
pub(crate) fn rows_seen(rows: &[f32], channels: usize) -> crate::Statistics {
    let count = rows.len() / channels;
    let column = |channel: usize| rows.iter().skip(channel).step_by(channels).copied();
    let mean = |sum: f64| sum / count as f64;
    let all = || (0..channels).map(column);
    crate::Statistics {
        count: count as u64,
        means: all().map(|own| mean(own.map(f64::from).sum())).collect(),
        mean_squares: all().map(|own| mean(own.map(|x| f64::from(x).powi(2)).sum())).collect(),
        ranges: vec![
            all().map(|own| own.fold((0f32, 0f32), |(a, b), x| (a.min(x), b.max(x)))).collect(),
        ],
    }
}
