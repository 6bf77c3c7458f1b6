//! What calling a runtime costs, whatever the model: differences below it say nothing.

use indexmap::IndexMap;
use modelopt_graph::{
    DataType, Dim, Model, ModelInfo, NewNode, Operator, OpsetImport, Origin, Place as Where,
    Tensor, Type, ValueInfo,
};
use modelopt_validate::{LatencyOptions, measure_latency};

use crate::scratch::Scratch;
use crate::target::Rig;

/// Enough runs for a median, in a tenth of a second at most.
const BRIEF: LatencyOptions = LatencyOptions { min_pairs: 200, min_seconds: 0.0, max_seconds: 0.1 };

/// The median time of the shortest run that there is, in milliseconds: one addition of as many
/// single numbers as the model has inputs. None where the runtime does not run that.
pub(crate) fn call_ms(rig: &Rig<'_>, inputs: usize) -> Option<f64> {
    let (model, inputs) = shortest(inputs.max(1));
    let scratch = Scratch::new().ok()?;
    let staged = scratch.write(&model, "shortest.onnx").ok()?;
    let mut session = rig.prepare(staged.path()).ok()?;
    let times = measure_latency(session.as_mut(), &inputs, &BRIEF).ok()?;
    Some(times.p50_ms)
}

/// The sum of so many single numbers, and something to add up.
fn shortest(count: usize) -> (Model, IndexMap<String, Tensor>) {
    let import = OpsetImport { domain: String::new(), version: 13, origin: Origin::NONE };
    let mut model =
        Model::new(ModelInfo { ir_version: 7, opsets: vec![import], ..ModelInfo::default() });
    let main = model.main();
    let number = || {
        let ty = Type::Tensor { elem: DataType::FLOAT, shape: Some(vec![Dim::Fixed(1)]) };
        Some(ty.into())
    };
    let mut inputs = IndexMap::new();
    let mut operands = Vec::new();
    for index in 0..count {
        let name = format!("x{index}");
        let value = model.add_value(&name);
        model.add_input(main, ValueInfo { value, ty: number(), origin: Origin::NONE });
        operands.push(Some(value));
        inputs.extend(Tensor::of(vec![1], &[1.0f32]).ok().map(|tensor| (name, tensor)));
    }
    let output = model.add_value("y");
    model.insert(
        NewNode {
            name: "sum".to_owned(),
            op: Operator::onnx("Sum"),
            inputs: operands,
            outputs: vec![Some(output)],
            attributes: Vec::new(),
            origin: Origin::NONE,
        },
        Where::Back(main),
    );
    model.add_output(main, ValueInfo { value: output, ty: number(), origin: Origin::NONE });
    (model, inputs)
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // What is read back is what was written.
mod tests {
    use modelopt_runtime::{Runtime, RuntimeKind, SessionOptions, runtime};

    use modelopt_onnx::{SaveOptions, Staged};

    use super::*;

    #[test]
    fn the_shortest_model_runs_in_the_embedded_runtimes() {
        let (model, inputs) = shortest(3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shortest.onnx");
        Staged::write(&model, &path, SaveOptions::default()).unwrap().commit().unwrap();
        for kind in RuntimeKind::embedded() {
            let runtime: Box<dyn Runtime> = runtime(kind, None).unwrap();
            let mut session = runtime.prepare(&path, &SessionOptions::default()).unwrap();
            assert_eq!(session.run(&inputs).unwrap()["y"].to_f32().unwrap()[0], 3.0, "{kind}");
        }
    }
}

#[cfg(test)]
mod planted;
