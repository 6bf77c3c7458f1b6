//! The most recently used plans of a session.

use std::sync::Arc;

use tract_onnx::prelude::TypedRunnableModel;

/// How many plans a session keeps; each may hold its own packed copy of the weights.
const KEPT: usize = 8;

/// Shapes of all inputs, in order.
type Shapes = Vec<Vec<usize>>;

/// Plans by input shapes, most recently used last.
#[derive(Default)]
pub(super) struct Plans(Vec<(Shapes, Arc<TypedRunnableModel>)>);

impl Plans {
    pub(super) fn find(&mut self, shapes: &Shapes) -> Option<Arc<TypedRunnableModel>> {
        let at = self.0.iter().position(|(known, _)| known == shapes)?;
        let entry = self.0.remove(at);
        let plan = entry.1.clone();
        self.0.push(entry);
        Some(plan)
    }

    pub(super) fn insert(&mut self, shapes: Shapes, plan: Arc<TypedRunnableModel>) {
        if self.0.len() >= KEPT {
            self.0.remove(0);
        }
        self.0.push((shapes, plan));
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::{RunOptions, TypedModel};

    use super::*;

    #[test]
    fn the_least_recently_used_plan_goes() {
        let plan =
            TypedModel::default().into_runnable_with_options(&RunOptions::default()).unwrap();
        let mut plans = Plans::default();
        for size in 0..KEPT {
            plans.insert(vec![vec![size]], plan.clone());
        }
        assert!(plans.find(&vec![vec![0]]).is_some());
        plans.insert(vec![vec![KEPT]], plan);
        assert!(plans.find(&vec![vec![0]]).is_some());
        assert!(plans.find(&vec![vec![1]]).is_none());
        assert_eq!(plans.0.len(), KEPT);
    }
}
