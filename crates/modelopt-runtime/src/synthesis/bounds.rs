//! How large the elements of an integer input may be.

use std::collections::HashSet;

use modelopt_graph::{Model, NodeId, ValueId};

/// The number of rows of the smallest constant table that an input indexes, followed forward
/// through operators that only move elements, and into nested graphs and functions.
pub(super) fn index_bound(model: &Model, input: ValueId) -> Option<u64> {
    let mut bound: Option<u64> = None;
    let mut seen = HashSet::new();
    let mut open = vec![input];
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        for (node, place) in model.consumers(value) {
            if let Some(rows) = table_size(model, node, place) {
                bound = Some(bound.map_or(rows, |bound| bound.min(rows)));
            }
            open.extend(passed_on(model, node, place));
        }
    }
    bound
}

/// The rows of the table that a node looks up, if this input holds its indices.
fn table_size(model: &Model, id: NodeId, place: usize) -> Option<u64> {
    let node = model.node(id);
    match (node.op.name.as_str(), place) {
        ("Gather", 1) if node.op.is_onnx() => {
            let dims = table_dims(model, node.input(0)?)?;
            let axis = node.int("axis", 0);
            let axis = if axis < 0 { axis.checked_add(dims.len() as i64)? } else { axis };
            dims.get(usize::try_from(axis).ok()?).copied().flatten().map(|rows| rows as u64)
        }
        ("OneHot", 0) if node.op.is_onnx() => {
            let depth = model.constant(model.resolve(node.input(1)?))?;
            let depth = match depth.to_i64() {
                Some(depth) => depth.first().copied()?,
                None => depth.to_f32()?.first().copied()? as i64,
            };
            u64::try_from(depth).ok()
        }
        _ => None,
    }
}

/// The dimensions of a constant table, also one that is stored quantized.
fn table_dims(model: &Model, table: ValueId) -> Option<Vec<Option<usize>>> {
    let mut value = table;
    // Longer chains than this are no longer just a stored table.
    for _ in 0..8 {
        value = model.resolve(value);
        if let Some(tensor) = model.constant(value) {
            return Some(tensor.shape().iter().copied().map(Some).collect());
        }
        let node = model.node(model.producer_node(value)?);
        match node.op.name.as_str() {
            "Cast" | "DequantizeLinear" | "Mul" => value = node.input(0)?,
            _ => return None,
        }
    }
    None
}

/// The values that hold the same elements after a node.
fn passed_on(model: &Model, id: NodeId, place: usize) -> Vec<ValueId> {
    let node = model.node(id);
    if let Some(function) = model.called_function(id) {
        let parameter = model.graph(function.body).inputs.get(place);
        return parameter.map(|info| info.value).into_iter().collect();
    }
    if !node.op.is_onnx() {
        return Vec::new();
    }
    let moves = match node.op.name.as_str() {
        "Cast" | "Identity" | "Reshape" | "Unsqueeze" | "Squeeze" | "Transpose" | "Flatten"
        | "Slice" | "Split" | "Expand" | "Tile" | "Gather" | "GatherElements" | "GatherND" => {
            place == 0
        }
        "Concat" => true,
        "Where" => place > 0,
        "Loop" | "Scan" => {
            let bodies = node.bodies().filter_map(|body| model.graph(body).inputs.get(place));
            return bodies.map(|info| info.value).collect();
        }
        _ => false,
    };
    if moves { node.outputs().iter().copied().flatten().collect() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use modelopt_graph::{
        Attribute, Constant, ModelInfo, NewNode, Operator, Origin, Owner, Place, Tensor, ValueInfo,
    };

    use super::*;

    struct Builder(Model, u32);

    impl Builder {
        fn new() -> (Self, ValueId) {
            let mut model = Model::new(ModelInfo { ir_version: 8, ..ModelInfo::default() });
            let value = model.add_value("ids");
            model.add_input(model.main(), ValueInfo { value, ty: None, origin: Origin::NONE });
            (Builder(model, 0), value)
        }

        fn table(&mut self, shape: &[usize]) -> ValueId {
            let value = self.value();
            let zeros = vec![0i8; shape.iter().product()];
            let tensor = Arc::new(Tensor::of(shape.to_vec(), &zeros).unwrap());
            self.0.set_constant(self.0.main(), value, Constant::Dense(tensor));
            value
        }

        fn value(&mut self) -> ValueId {
            self.1 += 1;
            self.0.add_value(format!("v{}", self.1))
        }

        fn node(&mut self, op: &str, inputs: &[ValueId], attributes: Vec<Attribute>) -> ValueId {
            self.node_in(Place::Back(self.0.main()), op, inputs, attributes)
        }

        fn node_in(
            &mut self,
            place: Place,
            op: &str,
            inputs: &[ValueId],
            attributes: Vec<Attribute>,
        ) -> ValueId {
            let output = self.value();
            let inputs = inputs.iter().copied().map(Some).collect();
            let op = Operator::onnx(op);
            let (name, outputs) = (String::new(), vec![Some(output)]);
            let origin = Origin::NONE;
            self.0.insert(NewNode { name, op, inputs, outputs, attributes, origin }, place);
            output
        }
    }

    #[test]
    fn the_smallest_table_counts() {
        let (mut b, ids) = Builder::new();
        let (small, large) = (b.table(&[7, 2]), b.table(&[9, 2]));
        let moved = b.node("Unsqueeze", &[ids], vec![]);
        let moved = b.node("Concat", &[moved, moved], vec![]);
        b.node("Gather", &[large, ids], vec![]);
        b.node("Gather", &[small, moved], vec![]);
        assert_eq!(index_bound(&b.0, ids), Some(7));
        assert_eq!(index_bound(&b.0, moved), Some(7));
    }

    #[test]
    fn quantized_tables_and_other_axes_count() {
        let (mut b, ids) = Builder::new();
        let table = b.table(&[3, 5]);
        let float = b.node("Cast", &[table], vec![]);
        b.node("Gather", &[float, ids], vec![Attribute::new("axis", -1i64)]);
        assert_eq!(index_bound(&b.0, ids), Some(5));
    }

    #[test]
    fn lookups_inside_branches_count() {
        let (mut b, ids) = Builder::new();
        let (table, cond) = (b.table(&[11, 1]), b.table(&[]));
        let body = b.0.add_graph(Owner::Model);
        b.node("If", &[cond], vec![Attribute::new("then_branch", body)]);
        b.node_in(Place::Back(body), "Gather", &[table, ids], vec![]);
        assert_eq!(index_bound(&b.0, ids), Some(11));
    }

    #[test]
    fn arithmetic_ends_the_trace() {
        let (mut b, ids) = Builder::new();
        let table = b.table(&[3, 1]);
        let sum = b.node("Add", &[ids, ids], vec![]);
        b.node("Gather", &[table, sum], vec![]);
        assert_eq!(index_bound(&b.0, ids), None);
    }
}
