//! Derives the type and shape of every value, for passes whose conditions are about shapes.
//!
//! It changes no graph, only what is known of it, and so counts as having changed nothing. What is
//! known stays true of every value while exact passes run; values that they make have no type yet.

use modelopt_graph::{Model, infer};

use crate::pass::{Changed, Pass, PassContext, PassError};

pub(crate) struct Types;

impl Pass for Types {
    fn name(&self) -> &'static str {
        "types"
    }

    fn run(&self, model: &mut Model, _: &mut PassContext) -> Result<Changed, PassError> {
        infer::infer(model);
        Ok(Changed::NOTHING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Build, float};

    #[test]
    fn values_in_between_get_their_shapes() {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2, 3]));
        let a = b.node("Neg", &[x], &[]);
        let y = b.node("Relu", &[a], &[]);
        b.output(y, float(&[2, 3]));
        assert!(b.model.value(a).ty().is_none());
        let changed = Types.run(&mut b.model, &mut PassContext::default()).unwrap();
        assert_eq!(changed, Changed::NOTHING);
        assert_eq!(b.model.value(a).ty(), Some(&float(&[2, 3])));
    }
}
