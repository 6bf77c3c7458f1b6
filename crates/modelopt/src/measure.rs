//! Measures layers as models of their own, on the target.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use modelopt_graph::{DataType, Model, Tensor};
use modelopt_rewrite::{Isolated, MeasuredLayer, Numerics, Plan, Prepared, Scheme, isolate};
use modelopt_runtime::{Outputs, Sample};
use modelopt_validate::{LatencyOptions, SlowLayer, compare_latency};
use serde::{Deserialize, Serialize};

use crate::provenance;
use crate::scratch::Scratch;
use crate::target::{self, Rig};
use crate::warning::Warning;
use crate::{Progress, Step};

/// Short, because there are many layers; the plan that comes of it is measured as a whole.
const QUICK: LatencyOptions = LatencyOptions { min_pairs: 8, min_seconds: 0.04, max_seconds: 0.4 };

/// Layers of the same shapes take the same time in every model.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    file: Option<PathBuf>,
    /// By runtime, processor, layer and scheme.
    known: BTreeMap<String, Figure>,
    /// The processor that new ones are measured on.
    cpu: String,
    changed: bool,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Figure {
    /// Time of the layer as it is, in milliseconds.
    original_ms: f64,
    /// Time in the scheme, divided by that.
    ratio: f64,
}

impl Cache {
    /// The measurements in a file. One that is missing or cannot be read is empty: everything in
    /// it can be measured again.
    pub(crate) fn open(file: Option<&Path>) -> Self {
        let known = file
            .and_then(|file| fs_err::read_to_string(file).ok())
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let cpu = provenance::machine().cpu;
        Cache { file: file.map(Path::to_owned), known, cpu, changed: false }
    }

    /// Writes what is new, and tells why it could not.
    pub(crate) fn close(self) -> Option<Warning> {
        let file = self.file.filter(|_| self.changed)?;
        let write = || -> std::io::Result<()> {
            let folder = file.parent().unwrap_or(Path::new("."));
            fs_err::create_dir_all(folder)?;
            let mut staged = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut staged, &self.known)?;
            staged.persist(&file)?;
            Ok(())
        };
        write().err().map(|error| Warning::NotCached { reason: error.to_string() })
    }
}

/// What measuring told.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) layers: HashMap<String, MeasuredLayer>,
    /// How many were measured now rather than found in the cache.
    pub(crate) fresh: usize,
    /// Layers of which the shapes are not known before the model runs.
    pub(crate) unknown: Vec<String>,
}

/// Measures all schemes of the layers that could be multiplied as int8.
pub(crate) fn layers(
    prepared: &Prepared,
    sample: &Sample,
    numerics: Numerics,
    rig: &Rig<'_>,
    cache: &mut Cache,
    progress: &mut dyn FnMut(Progress),
) -> Measured {
    let (isolated, unknown) = isolate(prepared, &target::shapes(sample).collect::<Vec<_>>());
    let place = format!("{} {}", rig.used.name, rig.used.version);
    let mut measured = Measured { unknown, ..Measured::default() };
    progress(Progress::Step(Step::MeasuringLayers));
    let total = isolated.len();
    for (done, layer) in isolated.iter().enumerate() {
        let mut ratios = Vec::new();
        for scheme in Scheme::default_ladder().into_iter().rev() {
            let before = cache.known.len();
            if let Some(figure) = figure(prepared, layer, (scheme, numerics), rig, cache) {
                ratios.push((scheme, figure.ratio));
            }
            measured.fresh += cache.known.len() - before;
        }
        let found = MeasuredLayer { ratios, place: place.clone() };
        measured.layers.insert(layer.name.clone(), found);
        progress(Progress::Part { done: done + 1, total });
    }
    measured
}

/// The changed layers that became slower, the most time lost first.
pub(crate) fn slow_layers(
    prepared: &Prepared,
    plan: &Plan,
    sample: &Sample,
    rig: &Rig<'_>,
    cache: &mut Cache,
    progress: &mut dyn FnMut(Progress),
) -> Vec<SlowLayer> {
    let places = plan.places();
    let (isolated, _) = isolate(prepared, &target::shapes(sample).collect::<Vec<_>>());
    progress(Progress::Step(Step::FindingSlowLayers));
    let total = isolated.len();
    let mut slow = Vec::new();
    for (done, layer) in isolated.iter().enumerate() {
        let planned = places.get(layer.name.as_str()).map(|&place| &plan.layers[place]);
        if let Some(planned) = planned.filter(|planned| !planned.scheme.is_keep())
            && let how = (planned.scheme, plan.numerics_of(planned))
            && let Some(figure) = figure(prepared, layer, how, rig, cache)
            && figure.ratio > 1.05
        {
            slow.push(SlowLayer {
                layer: layer.name.clone(),
                op: layer.op.clone(),
                scheme: planned.scheme.to_string(),
                slowdown: figure.ratio,
                original_ms: figure.original_ms,
            });
        }
        progress(Progress::Part { done: done + 1, total });
    }
    let lost = |layer: &SlowLayer| (layer.slowdown - 1.0) * layer.original_ms;
    slow.sort_by(|a, b| lost(b).total_cmp(&lost(a)));
    slow
}

fn figure(
    prepared: &Prepared,
    layer: &Isolated,
    (scheme, numerics): (Scheme, Numerics),
    rig: &Rig<'_>,
    cache: &mut Cache,
) -> Option<Figure> {
    let how = format!("{scheme} {:?} {}", numerics.granularity, numerics.reduce_range);
    let key = format!("{} | {} | {} | {how}", rig.key(), cache.cpu, layer.key);
    if let Some(&known) = cache.known.get(&key) {
        return Some(known);
    }
    let changed = prepared.isolated(layer, scheme, numerics)?;
    let scratch = Scratch::new().ok()?;
    let prepare = |model: &Model, name: &str| {
        let staged = scratch.write(model, name).ok()?;
        rig.prepare(staged.path()).ok()
    };
    let mut original = prepare(&layer.model, "original.onnx")?;
    let mut candidate = prepare(&changed, "changed.onnx")?;
    let inputs = inputs(layer)?;
    let latency =
        compare_latency(original.as_mut(), candidate.as_mut(), &inputs, 1, &QUICK).ok()?;
    // What is too little to be told is nothing.
    let ratio = if latency.is_told() { latency.ratio_median } else { 1.0 };
    let figure = Figure { original_ms: latency.original.p50_ms, ratio };
    cache.known.insert(key, figure);
    cache.changed = true;
    Some(figure)
}

/// Numbers of both signs for floats, zeros for the rest: integer kernels take the same time
/// whatever the numbers, float ones as long as there are no subnormal ones.
fn inputs(layer: &Isolated) -> Option<Outputs> {
    layer
        .inputs
        .iter()
        .map(|(name, elem, shape)| {
            let count = modelopt_graph::element_count(shape)?;
            let tensor = if *elem == DataType::FLOAT {
                let wave = (0..count).map(|i| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0);
                Tensor::of(shape.clone(), &wave.collect::<Vec<_>>())
            } else {
                Tensor::dense(*elem, shape.clone(), vec![0; elem.byte_len(count)?])
            };
            Some((name.clone(), tensor.ok()?))
        })
        .collect()
}

#[cfg(test)]
mod planted;
