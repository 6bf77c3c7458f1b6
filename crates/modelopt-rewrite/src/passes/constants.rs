//! A `Constant` node becomes an initializer of the same name:
//!
//! ```text
//! W = Constant<value = [..]>()
//!   =>
//! initializer W = [..]
//! ```
//!
//! Smaller, and from here on there is one kind of weight. A `Constant` that makes a graph output
//! stays: not every runtime takes an initializer for the output of a branch. Bodies of functions
//! are not touched; they cannot have initializers.

use modelopt_graph::{Model, NodeId, Patch};

use crate::engine::{Declined, Rewrite};

pub(crate) struct Constants;

impl Rewrite for Constants {
    fn name(&self) -> &'static str {
        "constants"
    }

    fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
        let node = model.node(id);
        let Some(output) = node.output(0).filter(|_| node.op.is("Constant")) else {
            return Err(Declined::NoMatch);
        };
        if model.value(output).is_output() {
            return Err(Declined::Unsafe("it makes a graph output"));
        }
        let Some(tensor) = model.constant(output) else {
            return Err(Declined::Unsafe("its value is not a dense tensor of numbers"));
        };
        let mut patch = Patch::new();
        patch.remove(id);
        patch.settle(output, node.graph(), tensor);
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;

    use super::*;
    use crate::engine::run;
    use crate::testing::{Build, float};

    #[test]
    fn a_constant_becomes_an_initializer_of_the_same_name() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2]));
        let tensor = Tensor::of(vec![2], &[1f32, 2.0]).unwrap();
        let w = b.node("Constant", &[], &[("value", tensor.clone().into())]);
        let name = b.model.value(w).name().to_owned();
        let y = b.node("Add", &[x, w], &[]);
        b.output(y, float(&[2]));
        assert_eq!(run(&mut b.model, &Constants).unwrap(), 1);
        assert_eq!(b.ops(), ["Add"]);
        assert_eq!(b.model.value(w).name(), name);
        assert_eq!(*b.model.constant(w).unwrap(), tensor);
    }

    #[test]
    fn a_constant_that_is_an_output_stays() {
        let mut b = Build::new(17);
        let w = b.node("Constant", &[], &[("value_float", 1f32.into())]);
        b.output(w, float(&[]));
        assert_eq!(run(&mut b.model, &Constants).unwrap(), 0);
        assert_eq!(b.ops(), ["Constant"]);
    }
}
