//! Values inside of a model that have to be seen to judge its outputs: what is chosen among on the
//! way to them. They are outputs of the copies that are compared, and of nothing else.

use std::path::Path;

use modelopt_calibrate::expose;
use modelopt_graph::{Model, Producer, ValueId};
use modelopt_onnx as onnx;

use crate::error::Error;
use crate::subject::Copy;

/// Shows the values of these names that the main graph has.
pub(crate) fn show_named(model: &mut Model, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let main = model.main();
    let inside = |value: &ValueId| {
        let value = model.value(*value);
        let made =
            matches!(value.producer(), Producer::Node(id, _) if model.node(id).graph() == main);
        made && names.iter().any(|name| name == value.name())
    };
    let values: Vec<ValueId> = model.values().filter(inside).collect();
    expose(model, &values);
}

/// Writes a copy of a model that shows these values.
pub(crate) fn copy(model: &Model, names: &[String]) -> Result<Copy, Error> {
    let mut model = model.clone();
    show_named(&mut model, names);
    Copy::write(&model)
}

/// The same of a model in a file.
pub(crate) fn copy_of(path: &Path, names: &[String]) -> Result<Copy, Error> {
    copy(&onnx::load(path)?, names)
}

#[cfg(test)]
mod tests;
