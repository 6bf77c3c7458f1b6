//! Nodes come after what they read:
//!
//! ```text
//! y = Relu(a); a = Neg(x)
//!   =>
//! a = Neg(x); y = Relu(a)
//! ```
//!
//! ONNX demands it, but not every exporter keeps to it. As few nodes move as possible.

use modelopt_graph::{Model, verify};

use crate::pass::{Changed, Pass, PassContext, PassError};

pub(crate) struct Sort;

impl Pass for Sort {
    fn name(&self) -> &'static str {
        "sort"
    }

    fn run(&self, model: &mut Model, _: &mut PassContext) -> Result<Changed, PassError> {
        // The loader refuses cycles, so sorting cannot fail on a loaded model; in one that was
        // made otherwise, the check behind the pass names the cycle.
        Ok(Changed(usize::from(verify::sort(model).unwrap_or(true))))
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Place;

    use super::*;
    use crate::pipeline;
    use crate::testing::{Build, float};

    /// `y = Relu(a); a = Neg(x)`, in this order.
    fn reversed() -> Build {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2]));
        let a = b.node("Neg", &[x], &[]);
        let y = b.node("Relu", &[a], &[]);
        b.output(y, float(&[2]));
        let [neg, relu] = b.model.walk()[..] else { panic!("two nodes") };
        b.model.move_node(relu, neg);
        b
    }

    #[test]
    fn nodes_come_after_what_they_read() {
        let mut b = reversed();
        assert_eq!(b.ops(), ["Relu", "Neg"]);
        let changed = pipeline::step(&Sort, &mut b.model, &mut PassContext::default()).unwrap();
        assert_eq!((changed, b.ops()), (Changed(1), vec!["Neg".into(), "Relu".into()]));
    }

    #[test]
    fn a_cycle_is_named() {
        let mut b = Build::new(17);
        let a = b.model.add_value("a");
        let main = b.model.main();
        let y = b.named_node_in(main, "Neg", &[a], "y");
        let new = modelopt_graph::NewNode {
            name: "back".into(),
            op: modelopt_graph::Operator::onnx("Neg"),
            inputs: vec![Some(y)],
            outputs: vec![Some(a)],
            attributes: Vec::new(),
            origin: modelopt_graph::Origin::NONE,
        };
        b.model.insert(new, Place::Back(main));
        b.output(y, float(&[2]));
        let error = pipeline::step(&Sort, &mut b.model, &mut PassContext::default()).unwrap_err();
        assert!(error.to_string().contains("'sort' broke the model"), "{error}");
    }
}
