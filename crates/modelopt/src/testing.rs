//! Small networks that really run, for tests of what carries plans out.

use std::sync::Arc;

use modelopt_graph::{
    Constant, DataType, Dim, Model, ModelInfo, NewNode, Operator, OpsetImport, Origin, Place,
    Tensor, Type, ValueId, ValueInfo, infer,
};
use modelopt_onnx::{SaveOptions, Staged};
use modelopt_rewrite::{ExplainedPlan, Prepared, Scheme};
use modelopt_validate::{Distribution, LatencyComparison, Limits};
use tempfile::TempDir;

use crate::budget::{Budget, Stop};
use crate::config::{Config, SearchOptions};
use crate::evaluator::Prover;
use crate::planning;
use crate::search::{Court, Trials};
use crate::subject::Subject;
use crate::target::Ground;
use crate::transform::{self, Hints};

/// Rows and columns of each weight.
pub(crate) const WIDTH: usize = 48;

/// One product of a network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layer {
    /// Weights that int8 takes well.
    Even,
    /// Weights of which a few are a thousand times as large as the others.
    Outliers,
}

/// A network in a file, with the settings that it is run by.
pub(crate) struct Bed {
    folder: TempDir,
    pub(crate) original: Model,
    pub(crate) prepared: Prepared,
    pub(crate) config: Config,
}

/// Numbers between -1 and 1, the same for the same seed.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn weights(layer: Layer, seed: u32) -> Vec<f32> {
    let mut numbers = noise(WIDTH * WIDTH, seed);
    let scale = 1.0 / (WIDTH as f32).sqrt();
    for x in &mut numbers {
        *x *= scale;
    }
    if let Layer::Outliers = layer {
        // One in each column, so that every scale of its own suffers.
        for x in numbers.iter_mut().take(WIDTH) {
            *x *= 1000.0;
        }
    }
    numbers
}

/// A chain of products with something that is not linear between them.
pub(crate) fn network(layers: &[Layer]) -> Model {
    let mut model = Model::new(ModelInfo { ir_version: 8, ..ModelInfo::default() });
    model.info.opsets.push(OpsetImport {
        domain: String::new(),
        version: 17,
        origin: Origin::NONE,
    });
    let main = model.main();
    let shape = Some(vec![Dim::Fixed(4), Dim::Fixed(WIDTH)]);
    let ty = Type::Tensor { elem: DataType::FLOAT, shape };
    let info = |value| ValueInfo { value, ty: Some(ty.clone().into()), origin: Origin::NONE };
    let x = model.add_value("x");
    model.add_input(main, info(x));
    let node = |model: &mut Model, op: &str, inputs: Vec<ValueId>, name: String| {
        let output = model.add_value(format!("{name}_out"));
        let new = NewNode {
            name,
            op: Operator::onnx(op),
            inputs: inputs.into_iter().map(Some).collect(),
            outputs: vec![Some(output)],
            attributes: Vec::new(),
            origin: Origin::NONE,
        };
        model.insert(new, Place::Back(main));
        output
    };
    let mut value = x;
    for (at, &layer) in layers.iter().enumerate() {
        let weight = model.add_value(format!("W{at}"));
        let tensor = Tensor::of(vec![WIDTH, WIDTH], &weights(layer, at as u32 + 1)).unwrap();
        model.set_constant(main, weight, Constant::Dense(Arc::new(tensor)));
        value = node(&mut model, "MatMul", vec![value, weight], format!("product{at}"));
        if at + 1 < layers.len() {
            value = node(&mut model, "Tanh", vec![value], format!("tanh{at}"));
        }
    }
    model.add_output(main, info(value));
    infer::infer(&mut model);
    model
}

impl Bed {
    /// A network of which nothing but parity is judged.
    pub(crate) fn of(layers: &[Layer], min_sqnr_db: f64) -> Self {
        let gate = Limits {
            min_sqnr_db: Some(min_sqnr_db),
            min_shrink: None,
            max_slowdown: None,
            ..Limits::default()
        };
        let config = Config {
            gate,
            measure_latency: false,
            min_weight_bytes: 0,
            search: SearchOptions::default(),
            ..Config::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let original = network(layers);
        let path = folder.path().join("model.onnx");
        Staged::write(&original, &path, SaveOptions::default()).unwrap().commit().unwrap();
        let prepared = transform::prepared(&original, &config).unwrap();
        Bed { folder, original, prepared, config }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("model.onnx")
    }

    /// The plan of the default rules under a scheme.
    pub(crate) fn plan(&self, scheme: Scheme) -> ExplainedPlan {
        let config = Config { scheme: Some(scheme), ..self.config.clone() };
        transform::planned(&self.prepared, &config, &Hints::default()).unwrap()
    }

    /// The original where it runs.
    pub(crate) fn ground(&self) -> Ground<'_> {
        let path = self.path();
        let subject = Subject::new(&path, &self.original, &[], &self.config).unwrap();
        let (subject, progress) = (Arc::new(subject), &mut |_| {});
        let survey =
            planning::survey(&subject, &self.original, &self.prepared, &self.config, progress);
        survey.unwrap().0
    }

    /// Lets something be done with what runs plans.
    pub(crate) fn prove<T>(&self, use_it: impl FnOnce(Prover<'_, '_>) -> T) -> T {
        let Ground { mut rig, samples, .. } = self.ground();
        use_it(Prover::new(&self.prepared, &samples, &mut rig, None))
    }

    /// Lets something be done with what runs and judges plans.
    pub(crate) fn judge<T>(&self, stop: &Stop, use_it: impl FnOnce(Trials<'_, '_, '_>) -> T) -> T {
        self.judge_within(None, stop, use_it)
    }

    /// The same with so many seconds for it.
    pub(crate) fn judge_within<T>(
        &self,
        seconds: Option<f64>,
        stop: &Stop,
        use_it: impl FnOnce(Trials<'_, '_, '_>) -> T,
    ) -> T {
        let budget = Budget::new(std::time::Instant::now(), seconds, stop.clone());
        let original_bytes = std::fs::metadata(self.path()).unwrap().len();
        let limits = self.config.gate.clone();
        let mut progress = |_| {};
        let Ground { mut rig, samples, .. } = self.ground();
        let court = Court {
            config: &self.config,
            limits: &limits,
            budget: &budget,
            original_bytes,
            meter: None,
            progress: &mut progress,
        };
        let prover = Prover::new(&self.prepared, &samples, &mut rig, None);
        use_it(Trials::new(prover, court))
    }
}

/// Times of a candidate that takes so many times as long as its original, which nobody doubts.
pub(crate) fn latency(ratio: f64) -> LatencyComparison {
    let times = |p50_ms: f64| Distribution {
        runs: 10,
        mean_ms: p50_ms,
        p50_ms,
        p90_ms: p50_ms,
        p99_ms: p50_ms,
        throughput_per_s: 1000.0 / p50_ms,
        quantiles_ms: Vec::new(),
    };
    LatencyComparison {
        ratio_median: ratio,
        ratio_low: ratio,
        ratio_high: ratio,
        confidence: 0.99,
        pairs: 10,
        noise: 0.0,
        original: times(10.0),
        candidate: times(10.0 * ratio),
        threads: 1,
        call_ms: None,
    }
}
