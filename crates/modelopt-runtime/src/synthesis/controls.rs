//! Small integer inputs that say how to compute, rather than what: a sampling rate, a length, a
//! size, a switch.

use std::collections::HashSet;

use modelopt_graph::{DataType, Model, NodeId, ValueId, element_count};

use super::bounds;

/// More elements are no control.
const MOST_ELEMENTS: usize = 8;

/// Values of a control to try, the likeliest first; the first is what is taken where nothing is
/// known to be wrong with it. Empty for inputs that are no controls.
pub(super) fn values(
    model: &Model,
    input: ValueId,
    dtype: DataType,
    shape: &[usize],
) -> Vec<Vec<i64>> {
    let integer = matches!(
        dtype,
        DataType::INT64 | DataType::INT32 | DataType::INT16 | DataType::UINT32 | DataType::UINT64
    );
    let count = element_count(shape).unwrap_or(usize::MAX);
    let fits = shape.len() <= 1 && (1..=MOST_ELEMENTS).contains(&count);
    if !fits || !(integer || dtype == DataType::BOOL) {
        return Vec::new();
    }
    if bounds::index_bound(model, input).is_some() {
        return Vec::new();
    }
    if dtype == DataType::BOOL {
        return [1, 0].map(|value| vec![value; count]).to_vec();
    }
    let uses = Uses::of(model, input);
    let mut found: Vec<Vec<i64>> = Vec::new();
    if count == 1 {
        found.extend(uses.compared.iter().map(|&value| vec![value]));
    }
    let name = model.value(input).name().to_lowercase();
    let words = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if words(&["rate"]) || name == "sr" {
        found.extend([16_000, 8_000].map(|rate| vec![rate; count]));
    }
    if uses.shapes && count > 1 {
        let mut rest = vec![1; count];
        if let Some(last) = rest.last_mut() {
            *last = -1;
        }
        found.push(rest);
    }
    let others: &[i64] = if words(&["size", "shape", "height", "width"]) {
        &[1, 224, 32, 640, 2, 0]
    } else if count == 1 || uses.shapes {
        &[1, 0, 2, 16, 32, 64]
    } else {
        // Of several any may be anything.
        return Vec::new();
    };
    found.extend(others.iter().map(|&value| vec![value; count]));
    let mut seen = HashSet::new();
    found.retain(|value| seen.insert(value.clone()));
    found
}

/// What becomes of a small input.
#[derive(Default)]
struct Uses {
    /// Constants that it is compared with for equality.
    compared: Vec<i64>,
    /// Whether it is the shape of something.
    shapes: bool,
}

impl Uses {
    fn of(model: &Model, input: ValueId) -> Self {
        let mut uses = Uses::default();
        let mut seen = HashSet::new();
        let mut open = vec![input];
        while let Some(value) = open.pop() {
            if !seen.insert(value) {
                continue;
            }
            for (id, place) in model.consumers(value) {
                uses.look(model, id, place);
                open.extend(passed_on(model, id, place));
            }
        }
        uses
    }

    fn look(&mut self, model: &Model, id: NodeId, place: usize) {
        let node = model.node(id);
        if !node.op.is_onnx() {
            return;
        }
        match (node.op.name.as_str(), place) {
            ("Equal", 0 | 1) => {
                let other = node.input(1 - place).map(|value| model.resolve(value));
                let constant = other.and_then(|other| model.constant(other));
                let values = constant.and_then(|constant| constant.to_i64()).unwrap_or_default();
                if let [value] = values.as_slice()
                    && !self.compared.contains(value)
                {
                    self.compared.push(*value);
                }
            }
            ("Reshape", 1) => self.shapes = true,
            _ => {}
        }
    }
}

/// The values that hold the same elements after a node.
fn passed_on(model: &Model, id: NodeId, place: usize) -> Vec<ValueId> {
    let node = model.node(id);
    let moves = node.op.is_onnx()
        && place == 0
        && matches!(
            node.op.name.as_str(),
            "Cast" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten"
        );
    if moves { node.outputs().iter().copied().flatten().collect() } else { Vec::new() }
}
