//! Matching: from a node backwards through what makes its inputs.

use modelopt_graph::{DataType, Model, Node, NodeId, Tensor, Type, Use, ValueId};

use super::expr::{Check, Expr, Kind, NodeExpr};
use crate::engine::Declined;

/// Patterns have a few dozen nodes; the rest is for spellings that fail late.
const MOST_STEPS: usize = 20_000;

/// Parts of one pattern: each takes a place on the stack.
const MOST_PARTS: usize = 256;

/// What a pattern found.
#[derive(Clone, Debug)]
pub struct Match {
    root: NodeId,
    found: Found,
}

/// What was captured so far on one way through the spellings.
#[derive(Clone, Debug, Default)]
struct Found {
    values: Vec<(&'static str, ValueId)>,
    named: Vec<(&'static str, NodeId)>,
    /// All nodes, the last one of the graph first.
    nodes: Vec<NodeId>,
    /// The highest rank of a constant that counts as one number.
    scalar_rank: usize,
}

/// What is still to be matched: a list on the stack, so that a spelling that fails leaves no trace.
struct Goal<'a> {
    expr: &'a Expr,
    value: Option<ValueId>,
    next: Option<&'a Goal<'a>>,
}

struct Matcher<'m> {
    model: &'m Model,
    root: NodeId,
    steps: usize,
    depth: usize,
    /// Why the latest match that was complete does not count.
    objection: Option<&'static str>,
}

impl Expr {
    /// Matches the pattern with the first output of `node` as its result.
    pub fn find(&self, model: &Model, node: NodeId) -> Result<Match, Declined> {
        let output = model.node(node).output(0).ok_or(Declined::NoMatch)?;
        let mut matcher =
            Matcher { model, root: node, steps: MOST_STEPS, depth: 0, objection: None };
        let goal = Goal { expr: self, value: Some(output), next: None };
        match matcher.solve(Some(&goal), &Found::default()) {
            Some(found) => Ok(Match { root: node, found }),
            None => Err(matcher.objection.map_or(Declined::NoMatch, Declined::Unsafe)),
        }
    }
}

impl Match {
    /// The captured value of this name, where the spelling that matched has it.
    pub fn value(&self, name: &str) -> Option<ValueId> {
        self.found.values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The captured value of this name, in a pattern that has it in every spelling.
    pub fn required(&self, name: &str) -> Result<ValueId, Declined> {
        self.value(name).ok_or(Declined::NoMatch)
    }

    /// The captured node of this name.
    pub fn node(&self, name: &str) -> Option<NodeId> {
        self.found.named.iter().find(|(known, _)| *known == name).map(|(_, node)| *node)
    }

    /// The number that a captured constant of one element is.
    pub fn number(&self, model: &Model, name: &str) -> Option<f64> {
        as_number(&*model.constant(self.value(name)?)?)
    }

    /// All matched nodes: what a rewrite that replaces the last one can remove.
    pub fn nodes(&self) -> &[NodeId] {
        &self.found.nodes
    }

    /// Whether the matched result has the shape of the captured value `name`, if both differ by
    /// numbers only: a constant of shape `[1, 1, 1]` would give a vector two more dimensions.
    pub fn keeps_rank_of(&self, model: &Model, name: &str) -> Result<(), Declined> {
        let shape =
            self.value(name).and_then(|value| model.value(value).ty()).and_then(Type::shape);
        if shape.map_or(0, Vec::len) >= self.found.scalar_rank {
            Ok(())
        } else {
            Err(Declined::Unsafe("a number may add dimensions"))
        }
    }

    /// The node whose first output is the matched result.
    pub fn root(&self) -> NodeId {
        self.root
    }
}

impl Matcher<'_> {
    fn solve(&mut self, goals: Option<&Goal<'_>>, found: &Found) -> Option<Found> {
        self.steps = self.steps.checked_sub(1)?;
        if self.depth == MOST_PARTS {
            return None;
        }
        self.depth += 1;
        let solved = self.solve_first(goals, found);
        self.depth -= 1;
        solved
    }

    /// Solves the first goal, and with it all others.
    fn solve_first(&mut self, goals: Option<&Goal<'_>>, found: &Found) -> Option<Found> {
        let Some(&Goal { expr, value, next }) = goals else {
            return match self.objection_to(found) {
                None => Some(found.clone()),
                Some(why) => {
                    self.objection = Some(why);
                    None
                }
            };
        };
        match (&*expr.0, value) {
            (Kind::Optional(_), None) => self.solve(next, found),
            (Kind::Optional(inner), value) => {
                self.solve(Some(&Goal { expr: inner, value, next }), found)
            }
            (Kind::OneOf(spellings), value) => spellings
                .iter()
                .find_map(|expr| self.solve(Some(&Goal { expr, value, next }), found)),
            (_, None) => None,
            (Kind::Any(name), Some(value)) => self.capture(name, value, next, found),
            (Kind::Constant(name), Some(value)) => {
                self.model.constant(value)?;
                self.capture(name, value, next, found)
            }
            (Kind::Scalar(name), Some(value)) => {
                let tensor = self.model.constant(value)?;
                as_number(&tensor)?;
                let found = found.with_scalar(&tensor);
                self.capture(name, value, next, &found)
            }
            (Kind::Number { value: wanted, tolerance }, Some(value)) => {
                let tensor = self.model.constant(value)?;
                let tolerance = tolerance.unwrap_or_else(|| resolution(tensor.dtype()));
                if (as_number(&tensor)? - wanted).abs() > tolerance * wanted.abs() {
                    return None;
                }
                self.solve(next, &found.with_scalar(&tensor))
            }
            (Kind::Node(pattern), Some(value)) => self.node(pattern, value, next, found),
        }
    }

    fn capture(
        &mut self,
        name: &'static str,
        value: ValueId,
        next: Option<&Goal<'_>>,
        found: &Found,
    ) -> Option<Found> {
        let known = found.values.iter().find(|(known, _)| *known == name);
        if let Some(&(_, known)) = known {
            let same = known == value || self.are_equal_constants(known, value);
            return if same { self.solve(next, found) } else { None };
        }
        let mut found = found.clone();
        found.values.push((name, value));
        self.solve(next, &found)
    }

    fn are_equal_constants(&self, a: ValueId, b: ValueId) -> bool {
        matches!((self.model.constant(a), self.model.constant(b)), (Some(a), Some(b)) if a == b)
    }

    fn node(
        &mut self,
        pattern: &NodeExpr,
        value: ValueId,
        next: Option<&Goal<'_>>,
        found: &Found,
    ) -> Option<Found> {
        let id = self.model.producer_node(value)?;
        let node = self.model.node(id);
        let fits = node.output(0) == Some(value)
            && pattern.ops.iter().any(|op| node.op.is(op))
            && node.inputs().iter().skip(pattern.inputs.len()).all(Option::is_none)
            && pattern.checks.iter().all(|check| check.holds(node));
        if !fits {
            return None;
        }
        let mut found = found.clone();
        if !found.nodes.contains(&id) {
            found.nodes.push(id);
        }
        if let Some(name) = pattern.name {
            found.named.push((name, id));
        }
        let inputs: Vec<(&Expr, Option<ValueId>)> =
            pattern.inputs.iter().enumerate().map(|(i, expr)| (expr, node.input(i))).collect();
        let straight = self.operands(&inputs, next, &found);
        if straight.is_some() || !pattern.commutes() {
            return straight;
        }
        let swapped = [(inputs[0].0, inputs[1].1), (inputs[1].0, inputs[0].1)];
        self.operands(&swapped, next, &found)
    }

    /// Puts operands before the goals that are left, and solves them all.
    fn operands(
        &mut self,
        inputs: &[(&Expr, Option<ValueId>)],
        next: Option<&Goal<'_>>,
        found: &Found,
    ) -> Option<Found> {
        match inputs.split_last() {
            None => self.solve(next, found),
            Some((&(expr, value), rest)) => {
                self.operands(rest, Some(&Goal { expr, value, next }), found)
            }
        }
    }

    /// Why the matched nodes cannot be taken out of the graph.
    fn objection_to(&self, found: &Found) -> Option<&'static str> {
        let graph = self.model.node(self.root).graph();
        let is_matched = |id: NodeId| found.nodes.contains(&id);
        if found.nodes.iter().any(|&id| self.model.node(id).graph() != graph) {
            return Some("a part of it stands in another graph");
        }
        let made_inside =
            |&(_, value): &(&str, ValueId)| self.model.producer_node(value).is_some_and(is_matched);
        if found.values.iter().any(made_inside) {
            return Some("what it reads is a value in between");
        }
        for &id in &found.nodes {
            let node = self.model.node(id);
            let first = usize::from(id == self.root);
            for &output in node.outputs().iter().skip(first).flatten() {
                for usage in self.model.value(output).uses() {
                    match *usage {
                        Use::Node(reader, _) if is_matched(reader) => {}
                        Use::Node(..) => return Some("something else reads a value in between"),
                        Use::Output(..) => return Some("a value in between is a graph output"),
                    }
                }
            }
        }
        None
    }
}

impl Found {
    fn with_scalar(&self, tensor: &Tensor) -> Found {
        let mut found = self.clone();
        found.scalar_rank = found.scalar_rank.max(tensor.shape().len());
        found
    }
}

impl Check {
    fn holds(self, node: &Node) -> bool {
        match self {
            Check::Int { name, default, wanted } => node.int(name, default) == wanted,
            Check::Float { name, default, wanted } => {
                let error = (node.float(name, default) - wanted).abs();
                error <= wanted.abs() * resolution(DataType::FLOAT) as f32
            }
            Check::Node(holds) => holds(node),
        }
    }
}

/// The number that a tensor of one element is.
fn as_number(tensor: &Tensor) -> Option<f64> {
    if tensor.len() != 1 {
        return None;
    }
    if let Some(numbers) = tensor.elements::<f64>() {
        return numbers.first().copied();
    }
    match tensor.to_f32() {
        Some(numbers) => numbers.first().copied().map(f64::from),
        None => tensor.to_i64()?.first().map(|&x| x as f64),
    }
}

/// What two spellings of one number may differ by, as a share of it: a few units in the last place of
/// the type. Exporters round to float32 before they write float64.
fn resolution(dtype: DataType) -> f64 {
    match dtype {
        DataType::FLOAT16 => 1e-3,
        DataType::BFLOAT16 => 8e-3,
        _ => 1e-6,
    }
}
