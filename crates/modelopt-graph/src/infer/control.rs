//! Control flow: what goes into bodies from outside, and what comes out of them.

use super::engine::Engine;
use super::types::{complete, join, join_known, without_shape};
use super::{contents, dims};
use crate::{DataType, Dim, GraphId, NodeId, Type, ValueId};

/// Loops nested deeper than this are inferred without trying to keep shapes of state, so that
/// the number of visits stays bounded.
const SHAPED_LOOPS: usize = 2;

impl Engine<'_> {
    /// `If`: what both branches agree on, or what the only branch gives that can be taken.
    pub(super) fn branches(&mut self, id: NodeId, depth: usize) -> Vec<Option<Type>> {
        let (Some(yes), Some(no)) = (self.body(id, "then_branch"), self.body(id, "else_branch"))
        else {
            return Vec::new();
        };
        let mut results = [yes, no].map(|body| {
            self.graph(body, depth + 1);
            self.results(body)
        });
        let condition = self.env.model.node(id).input(0);
        let known = condition.and_then(|value| contents::of(&self.env, value));
        if let Some([contents::Int::Known(taken)]) = known.as_deref() {
            return std::mem::take(&mut results[usize::from(*taken == 0)]);
        }
        let [yes, no] = results;
        yes.iter().zip(&no).map(|(a, b)| join_known(a.as_ref(), b.as_ref())).collect()
    }

    /// `Loop`: state that goes round, then what each round adds to the scan outputs.
    pub(super) fn repeat(&mut self, id: NodeId, depth: usize) -> Vec<Option<Type>> {
        let Some(body) = self.body(id, "body") else {
            return Vec::new();
        };
        let inputs: Vec<ValueId> = self.inputs(body);
        // Whether these two are scalars or have one element is the body's own business.
        for (index, elem) in [(0, DataType::INT64), (1, DataType::BOOL)] {
            if let Some(&value) = inputs.get(index) {
                self.set(value, Some(Type::tensor(elem)));
            }
        }
        let initial = self.input_types(id, 2);
        let states = inputs.get(2..).unwrap_or_default();
        let (mut results, finals) = self.settle(body, states, initial, 1, depth);
        let state_count = states.len();
        let rows = results.split_off(results.len().min(1 + state_count));
        let scanned = rows.into_iter().map(|row| stacked(row?, 0, Dim::Unknown));
        finals.into_iter().chain(scanned).collect()
    }

    /// `Scan`: state, then slices of the scanned inputs.
    pub(super) fn scan(&mut self, id: NodeId, depth: usize) -> Vec<Option<Type>> {
        let node = self.env.model.node(id);
        let Some(body) = self.body(id, "body") else {
            return Vec::new();
        };
        let old = self.env.model.opset(node.graph(), "").is_some_and(|version| version < 9);
        let all = self.input_types(id, usize::from(old));
        let scan_count = usize::try_from(node.int("num_scan_inputs", 0)).unwrap_or(usize::MAX);
        let Some(state_count) = all.len().checked_sub(scan_count) else {
            return Vec::new();
        };
        let inputs = self.inputs(body);
        let mut length = Dim::Unknown;
        let axis = |name: &str, index: usize| {
            node.ints(name).and_then(|axes| axes.get(index)).copied().unwrap_or(0)
        };
        for (index, ty) in all.iter().skip(state_count).enumerate() {
            // Version 8 has a batch axis, which bodies do not see.
            let slice = if old {
                ty.as_ref().and_then(Type::elem).map(Type::tensor)
            } else {
                let (slice, size) = match ty {
                    Some(ty) => sliced(ty, axis("scan_input_axes", index)),
                    None => (None, Dim::Unknown),
                };
                length = dims::both(&length, &size);
                slice
            };
            if let Some(&value) = inputs.get(state_count.saturating_add(index)) {
                self.set(value, slice);
            }
        }
        let mut initial: Vec<Option<Type>> = all.into_iter().take(state_count).collect();
        if old {
            for ty in &mut initial {
                *ty = ty.as_ref().and_then(Type::elem).map(Type::tensor);
            }
        }
        let states = inputs.get(..state_count.min(inputs.len())).unwrap_or_default();
        let (mut results, finals) = self.settle(body, states, initial, 0, depth);
        let rows = results.split_off(results.len().min(state_count));
        let scanned = rows.into_iter().enumerate().map(|(index, row)| {
            if old {
                return row?.elem().map(Type::tensor);
            }
            stacked(row?, axis("scan_output_axes", index), length.clone())
        });
        finals.into_iter().chain(scanned).collect()
    }

    /// `SequenceMap`: items in, items out.
    pub(super) fn sequence_map(&mut self, id: NodeId, depth: usize) -> Vec<Option<Type>> {
        let Some(body) = self.body(id, "body") else {
            return Vec::new();
        };
        let types = self.input_types(id, 0);
        for (value, ty) in self.inputs(body).into_iter().zip(types) {
            let item = match ty {
                Some(Type::Sequence(item)) => Some(*item),
                other => other,
            };
            self.set(value, item);
        }
        self.graph(body, depth + 1);
        let wrap = |ty: Option<Type>| Some(Type::Sequence(ty?.into()));
        self.results(body).into_iter().map(wrap).collect()
    }

    /// Infers a loop body with the state's types such that what comes out fits what goes in.
    /// Returns the types of the body's outputs, and of the state after any number of rounds.
    fn settle(
        &mut self,
        body: GraphId,
        states: &[ValueId],
        initial: Vec<Option<Type>>,
        first_state: usize,
        depth: usize,
    ) -> (Vec<Option<Type>>, Vec<Option<Type>>) {
        let mut assumed = initial;
        assumed.resize(states.len(), None);
        for (value, ty) in states.iter().zip(&mut assumed) {
            if ty.is_none() {
                *ty = complete(None, self.declared.get(value).copied());
            }
        }
        // First as it comes in, then without the sizes that changed, then without shapes.
        let mut shaped = if depth < SHAPED_LOOPS { 2 } else { 0 };
        loop {
            if shaped == 0 {
                for ty in &mut assumed {
                    *ty = ty.take().map(|ty| without_shape(&ty));
                }
            }
            for (&value, ty) in states.iter().zip(&assumed) {
                self.env.found.insert(value, ty.clone());
            }
            self.graph(body, depth + 1);
            let results = self.results(body);
            let fitting: Vec<Option<Type>> = assumed
                .iter()
                .enumerate()
                .map(|(i, ty)| fit(ty.as_ref(), results.get(first_state + i)?.as_ref()))
                .collect();
            if shaped == 0 || fitting == assumed {
                return (results, fitting);
            }
            assumed = fitting;
            shaped -= 1;
        }
    }

    /// The graph of an attribute.
    fn body(&self, id: NodeId, name: &str) -> Option<GraphId> {
        let node = self.env.model.node(id);
        match node.attribute(name) {
            Some(crate::AttributeValue::Graph(graph)) => Some(*graph),
            _ => None,
        }
    }

    fn inputs(&self, body: GraphId) -> Vec<ValueId> {
        self.env.model.graph(body).inputs.iter().map(|info| info.value).collect()
    }

    /// Types of a node's inputs from one on.
    pub(super) fn input_types(&self, id: NodeId, from: usize) -> Vec<Option<Type>> {
        let inputs = self.env.model.node(id).inputs();
        let known = |value: &Option<ValueId>| Some(self.env.ty((*value)?)?.into_owned());
        inputs.get(from..).unwrap_or_default().iter().map(known).collect()
    }

    /// Types of a graph's outputs.
    pub(super) fn results(&self, body: GraphId) -> Vec<Option<Type>> {
        let outputs = &self.env.model.graph(body).outputs;
        outputs
            .iter()
            .map(|info| {
                let ty = self.env.ty(info.value).map(std::borrow::Cow::into_owned);
                complete(ty, self.declared.get(&info.value).copied())
            })
            .collect()
    }
}

/// What is certain of state that starts as one type and comes back as another. Its kind and
/// element type may not change, so knowing either is enough for them.
fn fit(start: Option<&Type>, back: Option<&Type>) -> Option<Type> {
    match (start, back) {
        (Some(start), Some(back)) => join(start, back),
        (Some(known), None) | (None, Some(known)) => Some(without_shape(known)),
        (None, None) => None,
    }
}

/// The type of many rows put together along a new axis.
fn stacked(row: Type, axis: i64, length: Dim) -> Option<Type> {
    let Type::Tensor { elem, shape } = row else {
        return None;
    };
    let shape = shape.and_then(|mut shape| {
        shape.insert(dims::axis(axis, shape.len() + 1)?, length);
        Some(shape)
    });
    Some(Type::Tensor { elem, shape })
}

/// The type of one slice along an axis, and how many there are.
fn sliced(ty: &Type, axis: i64) -> (Option<Type>, Dim) {
    let Some(elem) = ty.elem() else {
        return (None, Dim::Unknown);
    };
    let cut = ty.shape().and_then(|shape| {
        let mut shape = shape.clone();
        let size = shape.remove(dims::axis(axis, shape.len())?);
        Some((shape, size))
    });
    match cut {
        Some((shape, size)) => (Some(Type::Tensor { elem, shape: Some(shape) }), size),
        None => (Some(Type::tensor(elem)), Dim::Unknown),
    }
}
