//! A pass of one's own: `Relu(Relu(x))` becomes `Relu(x)`, right before what is unused is removed.

mod small_model;

use std::error::Error;

use modelopt::graph::{Model, NodeId, Patch, Place};
use modelopt::rewrite::engine::{Declined, Rewrite};
use modelopt::rewrite::pattern::{any, op};
use modelopt::rewrite::{EveryNode, PassContext, Pipeline};

struct OneRelu;

impl Rewrite for OneRelu {
    fn name(&self) -> &'static str {
        "one-relu"
    }

    fn propose(&self, model: &Model, node: NodeId) -> Result<Patch, Declined> {
        let pattern = op("Relu", [op("Relu", [any("x")])]);
        let found = pattern.find(model, node)?;
        let output = model.node(node).output(0).ok_or(Declined::NoMatch)?;
        let mut patch = Patch::new();
        for &node in found.nodes() {
            patch.remove(node);
        }
        let name = model.node(node).name.clone();
        let x = found.required("x")?;
        patch.node_into(Place::Before(node), "Relu", name, &[x.into()], &[], output);
        Ok(patch)
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let mut pipeline = Pipeline::preparation();
    pipeline.insert_before("dead", EveryNode(OneRelu), "what it leaves unused goes there")?;
    pipeline.enable("gelu")?;
    for entry in pipeline.entries() {
        let state = if entry.is_on() { "on " } else { "off" };
        println!("{state} {:16} {}", entry.name(), entry.reason());
    }

    let mut model = small_model::twice_rectified(5);
    let rectifiers =
        |model: &Model| model.walk().into_iter().filter(|&id| model.node(id).op.is("Relu")).count();
    let before = rectifiers(&model);
    for (name, changed) in pipeline.run(&mut model, &mut PassContext::default())? {
        if changed.any() {
            println!("{name} changed something {} times", changed.0);
        }
    }
    assert_eq!((before, rectifiers(&model)), (4, 2));
    Ok(())
}
