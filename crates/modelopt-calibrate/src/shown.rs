//! Values inside of a model made outputs of it.

use modelopt_graph::{Model, Origin, Use, ValueId, ValueInfo};

/// Makes values of the main graph outputs of it, after those it has.
pub fn expose(model: &mut Model, values: &[ValueId]) {
    let main = model.main();
    for &value in values {
        let uses = model.value(value).uses();
        if !uses.iter().any(|at| matches!(at, Use::Output(graph, _) if *graph == main)) {
            let ty = model.value(value).ty().cloned().map(Into::into);
            model.add_output(main, ValueInfo { value, ty, origin: Origin::NONE });
        }
    }
}
