//! A plan, and beside it what each of its layers is and why it becomes what it becomes.

use std::ops::{Deref, DerefMut};

use modelopt_graph::{Model, NodeId, ValueId};

use super::{Plan, PlannedLayer};
use crate::choices::Numerics;

/// What a layer of a plan is, and why it gets its form. Nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Operator.
    pub op: String,
    /// Why the layer gets the form that it gets.
    pub reason: String,
    /// Names of its weights.
    pub weights: Vec<String>,
    /// Size of its weights in the model as given, in bytes.
    pub bytes: u64,
}

impl Explanation {
    /// Of a node with weights of these sizes, in bytes.
    pub(crate) fn of(
        model: &Model,
        node: NodeId,
        weights: &[(ValueId, u64)],
        reason: String,
    ) -> Self {
        Explanation {
            op: model.node(node).op.to_string(),
            reason,
            weights: weights.iter().map(|&(v, _)| model.value(v).name().to_owned()).collect(),
            bytes: weights.iter().map(|(_, bytes)| bytes).sum(),
        }
    }
}

/// A plan with an explanation for each of its layers, in the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedPlan {
    plan: Plan,
    why: Vec<Explanation>,
}

impl ExplainedPlan {
    /// A plan without layers.
    pub fn new(numerics: Numerics) -> Self {
        ExplainedPlan::from(Plan::new(numerics))
    }

    /// Adds a layer.
    pub fn push(&mut self, layer: PlannedLayer, why: Explanation) {
        // A plan that got layers past this is explained as far as it was.
        self.why.resize_with(self.plan.layers.len(), Explanation::default);
        self.plan.layers.push(layer);
        self.why.push(why);
    }

    /// The explanation of a layer, by its place; nothing is known of a layer that is not there.
    pub fn why(&self, place: usize) -> &Explanation {
        static UNKNOWN: Explanation =
            Explanation { op: String::new(), reason: String::new(), weights: Vec::new(), bytes: 0 };
        self.why.get(place).unwrap_or(&UNKNOWN)
    }

    /// Layers with their explanations, in order.
    pub fn lines(&self) -> impl Iterator<Item = (&PlannedLayer, &Explanation)> {
        self.plan.layers.iter().enumerate().map(|(place, layer)| (layer, self.why(place)))
    }

    /// The same to be changed: whoever changes a layer says why.
    pub fn lines_mut(&mut self) -> impl Iterator<Item = (&mut PlannedLayer, &mut Explanation)> {
        self.why.resize_with(self.plan.layers.len(), Explanation::default);
        self.plan.layers.iter_mut().zip(&mut self.why)
    }

    /// Changes one layer, by its place.
    ///
    /// # Panics
    /// If there is none.
    pub fn line_mut(&mut self, place: usize) -> (&mut PlannedLayer, &mut Explanation) {
        self.why.resize_with(self.plan.layers.len(), Explanation::default);
        (&mut self.plan.layers[place], &mut self.why[place])
    }

    /// Layers with their explanations, taken apart.
    pub(crate) fn into_lines(self) -> impl Iterator<Item = (PlannedLayer, Explanation)> {
        let ExplainedPlan { plan, mut why } = self;
        why.resize_with(plan.layers.len(), Explanation::default);
        plan.layers.into_iter().zip(why)
    }

    /// The decisions alone.
    pub fn into_plan(self) -> Plan {
        self.plan
    }
}

/// A plan of which nothing is known but what it says.
impl From<Plan> for ExplainedPlan {
    fn from(plan: Plan) -> Self {
        let why = vec![Explanation::default(); plan.layers.len()];
        ExplainedPlan { plan, why }
    }
}

impl Deref for ExplainedPlan {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.plan
    }
}

impl DerefMut for ExplainedPlan {
    fn deref_mut(&mut self) -> &mut Plan {
        &mut self.plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::Scheme;

    fn explained() -> ExplainedPlan {
        let mut plan = ExplainedPlan::new(Numerics::default());
        for (id, reason) in [("a", "first"), ("b", "second")] {
            let why = Explanation { reason: reason.to_owned(), ..Explanation::default() };
            plan.push(PlannedLayer::new(id, Scheme::INT8_WEIGHTS), why);
        }
        plan
    }

    #[test]
    fn each_layer_has_its_own_explanation() {
        let plan = explained();
        let lines: Vec<(&str, &str)> =
            plan.lines().map(|(layer, why)| (layer.id.as_str(), why.reason.as_str())).collect();
        assert_eq!(lines, [("a", "first"), ("b", "second")]);
        assert_eq!((plan.why(1).reason.as_str(), plan.why(2)), ("second", &Explanation::default()));
        assert_eq!(plan.changed(), 2);
    }

    #[test]
    fn a_layer_that_came_without_one_stays_unexplained() {
        let mut plan = explained();
        plan.layers.push(PlannedLayer::new("c", Scheme::KEEP));
        assert_eq!(plan.lines().count(), 3);
        plan.push(
            PlannedLayer::new("d", Scheme::KEEP),
            Explanation { reason: "fourth".into(), ..Explanation::default() },
        );
        assert_eq!((plan.why(2).reason.as_str(), plan.why(3).reason.as_str()), ("", "fourth"));
        *plan.line_mut(2).1 = Explanation { reason: "third".into(), ..Explanation::default() };
        let reasons: Vec<String> = plan.into_lines().map(|(_, why)| why.reason).collect();
        assert_eq!(reasons, ["first", "second", "third", "fourth"]);
    }
}
