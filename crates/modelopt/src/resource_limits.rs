//! What a model demands to be run, as far as its file tells.
//!
//! A file of a few bytes can ask for terabytes, or to be run for ever. Runtimes run in this
//! process and abort it where memory ends, so such models are refused before they see them.

use modelopt_graph::{Dim, Model, NodeId, Producer, Type, ValueId, infer, verify};

use crate::error::{Error, ErrorKind};

/// The largest array that is let through, in bytes.
const LARGEST: u128 = 4 << 30;

/// The most turns of a `Loop` that nothing but its count ends. Loops that a condition ends are
/// often exported with the largest count there is.
const MOST_TURNS: i64 = 1 << 31;

/// Refuses a model that asks for more than any machine has. The model's types must be inferred.
pub(crate) fn check(model: &Model) -> Result<(), Error> {
    let unreasonable = |what| Err(ErrorKind::Unreasonable(what).into());
    for input in &model.graph(model.main()).inputs {
        if let Some(size) = too_large(model, input.value) {
            let name = model.value(input.value).name();
            return unreasonable(format!("its input '{name}' is {size}"));
        }
    }
    for id in model.walk() {
        let node = model.node(id);
        if let Some(size) = node.outputs().iter().flatten().find_map(|&v| too_large(model, v)) {
            return unreasonable(format!("{} makes {size}", model.label(id)));
        }
        if let Some(length) = length(model, id).filter(|&length| length * 4.0 > LARGEST as f64) {
            return unreasonable(format!("{} makes {length} numbers", model.label(id)));
        }
        if let Some(turns) = turns(model, id).filter(|&turns| turns > MOST_TURNS) {
            return unreasonable(format!("{} takes {turns} turns", model.label(id)));
        }
    }
    Ok(())
}

/// The same for a model as it was loaded; gives it with its types inferred.
pub(crate) fn check_loaded(model: &Model) -> Result<Model, Error> {
    let mut model = model.clone();
    // The loader refuses cycles, so sorting cannot fail on a loaded model.
    let _ = verify::sort(&mut model);
    infer::infer(&mut model);
    check(&model)?;
    Ok(model)
}

/// The type of a value, if that alone says that it is too large.
fn too_large(model: &Model, value: ValueId) -> Option<&Type> {
    let ty = model.value(value).ty()?;
    let bits = u128::from(ty.elem()?.bits().unwrap_or(8));
    let dims = ty.shape()?.iter().map(Dim::fixed).collect::<Option<Vec<usize>>>()?;
    if dims.contains(&0) {
        return None;
    }
    let total = dims.iter().fold(bits, |total, &dim| total.saturating_mul(dim as u128));
    (total / 8 > LARGEST).then_some(ty)
}

/// The length of a `Range` of floats, whose types say nothing of it because it depends on how a
/// runtime rounds.
fn length(model: &Model, id: NodeId) -> Option<f64> {
    let node = model.node(id);
    let number = |index| Some(f64::from(*model.constant(node.input(index)?)?.to_f32()?.first()?));
    let is_range = node.op.is("Range");
    is_range.then(|| Some((number(1)? - number(0)?) / number(2)?)).flatten()
}

/// The number of turns of a `Loop` that only counts, if it is a constant.
fn turns(model: &Model, id: NodeId) -> Option<i64> {
    let node = model.node(id);
    if !node.op.is("Loop") {
        return None;
    }
    let count = *model.constant(node.input(0)?)?.elements::<i64>()?.first()?;
    let body = node.bodies().next()?;
    let goes_on = model.resolve(model.graph(body).outputs.first()?.value);
    let passed_on = model.graph(body).inputs.get(1).is_some_and(|info| info.value == goes_on);
    let constant = !matches!(model.value(goes_on).producer(), Producer::Node(..))
        && model.constant(goes_on).is_some();
    (passed_on || constant).then_some(count)
}

#[cfg(test)]
mod tests {
    use xtask::testdata::fixture;

    use super::*;

    fn refusal(name: &str) -> Option<String> {
        let model = modelopt_onnx::load(&fixture(name)).unwrap();
        check_loaded(&model).err().map(|error| error.to_string())
    }

    #[test]
    fn bombs_are_found_before_they_run() {
        for name in ["constant_of_shape", "expand", "tile", "range", "concat", "loop"] {
            let said = refusal(&format!("attacks/fold_{name}.onnx")).expect(name);
            let what = match name {
                "loop" => " turns",
                "range" => " makes 999999995904 numbers",
                _ => " makes float[",
            };
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn ordinary_models_may_run() {
        for name in ["loop_body", "scan_body", "attention_small", "zero_size_tensor"] {
            assert_eq!(refusal(&format!("graphs/{name}.onnx")), None);
        }
    }
}
