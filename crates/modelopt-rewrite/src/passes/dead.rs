//! What nothing uses goes: nodes whose results are unread, and initializers, in every graph.
//!
//! Unused initializers are what makes a "quantized" model larger than the original.

use modelopt_graph::{Model, Producer};

use crate::pass::{Changed, Pass, PassContext, PassError};

pub(crate) struct Dead;

impl Pass for Dead {
    fn name(&self) -> &'static str {
        "dead"
    }

    fn run(&self, model: &mut Model, _: &mut PassContext) -> Result<Changed, PassError> {
        Ok(Changed(remove_unread(model)))
    }
}

/// Returns how many nodes and initializers went.
pub(crate) fn remove_unread(model: &mut Model) -> usize {
    let mut removed = 0;
    // Backwards, so that whole chains go in one pass. Outer nodes come before the nodes
    // nested in them, and are removed with all they hold.
    for node in model.walk().into_iter().rev() {
        let current = model.node(node);
        let unread = |value: &modelopt_graph::ValueId| model.value(*value).uses().is_empty();
        if !current.is_removed()
            && !current.outputs().is_empty()
            && current.outputs().iter().flatten().all(unread)
        {
            model.remove(node);
            removed += 1;
        }
    }
    for value in model.values() {
        let entry = model.value(value);
        if entry.uses().is_empty()
            && entry.constant().is_some()
            && matches!(entry.producer(), Producer::Initializer(_))
        {
            model.clear_constant(value);
            removed += 1;
        }
    }
    model.prune_declarations();
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::step;
    use crate::testing::{Build, float};

    #[test]
    fn unread_chains_and_initializers_go() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2]));
        let unused = b.weight("unused", &[2], &[0.0; 2]);
        let w = b.weight("W", &[2], &[0.0; 2]);
        let a = b.node("Add", &[x, w], &[]);
        b.node("Neg", &[a], &[]);
        let y = b.node("Relu", &[x], &[]);
        b.output(y, float(&[2]));
        assert_eq!(step(&Dead, &mut b.model, &mut PassContext::default()).unwrap(), Changed(4));
        assert_eq!(b.ops(), ["Relu"]);
        assert!(b.model.initializers_of(b.model.main()).is_empty());
        assert!(b.model.constant(unused).is_none());
    }

    #[test]
    fn an_initializer_that_is_an_output_stays() {
        let mut b = Build::new(17);
        let w = b.weight("W", &[2], &[0.0; 2]);
        b.output(w, float(&[2]));
        assert_eq!(
            step(&Dead, &mut b.model, &mut PassContext::default()).unwrap(),
            Changed::NOTHING
        );
        assert!(b.model.constant(w).is_some());
    }
}
