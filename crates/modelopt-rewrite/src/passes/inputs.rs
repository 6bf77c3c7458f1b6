//! Before IR version 4, every initializer had to be listed as a graph input as well:
//!
//! ```text
//! ir 3: graph(x, W) { W = [..]; y = MatMul(x, W) }
//!   =>
//! ir 4: graph(x)    { W = [..]; y = MatMul(x, W) }
//! ```
//!
//! Runtimes treat such inputs as constants, and so must whoever wants to replace them. From IR
//! version 4 on, a listed initializer is a default that callers may override, and stays.

use modelopt_graph::Model;

use crate::pass::{Changed, Pass, PassContext, PassError};

pub(crate) struct FreezeInputs;

impl Pass for FreezeInputs {
    fn name(&self) -> &'static str {
        "freeze-inputs"
    }

    fn run(&self, model: &mut Model, _: &mut PassContext) -> Result<Changed, PassError> {
        if !model.defaults_are_constants() {
            return Ok(Changed::NOTHING);
        }
        let frozen = model.freeze_defaulted_inputs();
        // Initializers that are not inputs are what IR version 4 allows.
        model.info.ir_version = 4;
        Ok(Changed(frozen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::step;
    use crate::testing::{Build, float};

    #[test]
    fn listed_initializers_become_plain_ones() {
        let mut b = Build::new(9);
        b.model.info.ir_version = 3;
        let w = b.input("W", float(&[2, 2]));
        b.default(w, &[2, 2], &[1.0; 4]);
        let x = b.input("x", float(&[1, 2]));
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[1, 2]));
        assert_eq!(
            step(&FreezeInputs, &mut b.model, &mut PassContext::default()).unwrap(),
            Changed(1)
        );
        assert_eq!(b.model.graph(b.model.main()).inputs.len(), 1);
        assert!(b.model.constant(w).is_some());
        assert_eq!(b.model.info.ir_version, 4);
    }

    #[test]
    fn defaults_that_callers_may_override_stay() {
        let mut b = Build::new(13);
        let w = b.input("W", float(&[2, 2]));
        b.default(w, &[2, 2], &[1.0; 4]);
        let y = b.node("Relu", &[w], &[]);
        b.output(y, float(&[2, 2]));
        assert_eq!(
            step(&FreezeInputs, &mut b.model, &mut PassContext::default()).unwrap(),
            Changed(0)
        );
        assert_eq!(b.model.graph(b.model.main()).inputs.len(), 1);
        assert!(b.model.constant(w).is_none());
    }
}
