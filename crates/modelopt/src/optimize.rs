//! From one file to another: the whole way, with the gate at its end.

use std::path::Path;

use modelopt_graph::Model;
use modelopt_onnx::{self as onnx, SaveOptions, Staged};
use modelopt_report as report;
use modelopt_rewrite::{Plan, Precision, QuantizedWeight, Scheme};
use modelopt_runtime::Sample;
use modelopt_validate::{Culprit, Parity, SizeChange, SlowLayer, Verdict};

use crate::Progress;
use crate::blame;
use crate::casting::Casting;
use crate::config::{Config, Enforcement};
use crate::demand;
use crate::error::Error;
use crate::judging::{self, Candidate};
use crate::measure::{self, Cache};
use crate::planning::{self, Notes};
use crate::provenance;
use crate::run::{self, Ground};
use crate::transform::{self, Hints, Transformed};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether the output was written.
    pub emitted: bool,
    /// Whether nothing was there to change, and the output is the input.
    pub unchanged: bool,
    /// The plan that was carried out.
    pub plan: Plan,
    /// What became of each weight.
    pub weights: Vec<QuantizedWeight>,
    /// Sizes, external data included.
    pub size: SizeChange,
    /// How many samples the models ran on, and whether those were real.
    pub samples: Option<report::Samples>,
    /// What each runtime said; the target first. Empty if nothing was run.
    pub runs: Vec<report::Run>,
    /// The figures against the limits.
    pub verdict: Option<Verdict>,
    /// After a verdict that failed on parity: the layers by the damage that each does alone,
    /// worst first.
    pub culprits: Vec<Culprit>,
    /// After a verdict that failed on latency: the layers that became slower, the most time lost
    /// first.
    pub slow_layers: Vec<SlowLayer>,
    /// What the user should know.
    pub warnings: Vec<String>,
    original: report::ModelFile,
    candidate: report::ModelFile,
}

/// Makes a candidate of the model at `input`, runs both, and writes it to `output` if the verdict
/// is good or the settings say so. `output` is untouched otherwise, and replaced atomically.
pub fn optimize(
    input: &Path,
    output: &Path,
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, Error> {
    progress(Progress::Step("loading"));
    let original = onnx::load(input)?;
    let file = input.to_owned();
    let original_file = std::thread::spawn(move || provenance::model_file(&file, &file));
    progress(Progress::Step("planning"));
    let prepared = transform::prepared(&original, config)?;
    let mut warnings = Vec::new();
    let mut cache = Cache::open(config.measure_cache.as_deref());
    let runs = config.enforcement != Enforcement::None;
    let mut ground = None;
    if runs && planning::runs_the_model(config) {
        match survey(input, &original, &prepared, config, progress) {
            Ok(surveyed) => ground = Some(surveyed),
            Err(error) if config.measure => return Err(error),
            Err(error) => tolerate(error, config, &mut warnings)?,
        }
    }
    let plan = match &mut ground {
        Some(ground) => {
            let mut notes = Notes { cache: &mut cache, warnings: &mut warnings };
            planning::informed(&original, &prepared, ground, config, &mut notes, progress)?
        }
        None => transform::planned(&prepared, config, &Hints::default())?,
    };
    let mut transformed = transform::rewritten(&original, &prepared, plan, config)?;
    warnings.extend(unchanged_warning(&transformed));
    let computes_in = config.computes_in().filter(|_| !transformed.unchanged);
    warnings.extend(computes_in.map(cpu_warning));
    let casting = transformed.plan.io.precision().map(|to| Casting::of(&original, to));
    let skip = transformed.unchanged || !runs;
    if !skip && ground.is_none() && !planning::runs_the_model(config) {
        match survey(input, &original, &prepared, config, progress) {
            Ok(surveyed) => ground = Some(surveyed),
            Err(error) => tolerate(error, config, &mut warnings)?,
        }
    }
    // Reading a file again cannot panic; if it did, the report would lack its digest.
    let original_file = original_file.join().unwrap_or_default();
    if !transformed.unchanged {
        let target = ground.as_ref().map(|ground| &ground.bench.used);
        let digest = original_file.blake3.clone();
        provenance::stamp(&mut transformed.model, digest, &transformed.plan, target);
    }
    progress(Progress::Step("writing the candidate"));
    let save = SaveOptions { external_data: config.external_data };
    let staged = Staged::write(&transformed.model, output, save)?;
    let size = SizeChange {
        original_bytes: onnx::stored_size(input, &original)?,
        candidate_bytes: staged.size(),
    };
    let mut outcome = Outcome {
        emitted: false,
        unchanged: transformed.unchanged,
        plan: transformed.plan,
        weights: transformed.weights,
        size,
        samples: None,
        runs: Vec::new(),
        verdict: None,
        culprits: Vec::new(),
        slow_layers: Vec::new(),
        warnings,
        original: original_file,
        candidate: provenance::model_file(output, staged.path()),
    };
    // The candidate's weights are on disk now.
    drop(transformed.model);
    if let (false, Some(ground)) = (skip, ground) {
        let candidate = Candidate { path: staged.path(), casting: casting.as_ref() };
        let judged =
            outcome.judge(input, &prepared, candidate, ground, &mut cache, config, progress);
        if let Err(error) = judged {
            tolerate(error, config, &mut outcome.warnings)?;
        }
    }
    outcome.warnings.extend(cache.close());
    if !skip && outcome.verdict.is_none() {
        outcome.verdict = Some(judging::verdict(None, size, config));
    }
    let pass = outcome.verdict.as_ref().is_none_or(|verdict| verdict.pass);
    outcome.emitted = pass || config.enforcement != Enforcement::Gate;
    if outcome.emitted {
        progress(Progress::Step("emitting"));
        staged.commit()?;
    }
    Ok(outcome)
}

/// What cannot be proven is emitted only where the user said to emit whatever the verdict.
fn tolerate(error: Error, config: &Config, warnings: &mut Vec<String>) -> Result<(), Error> {
    if config.enforcement == Enforcement::Judge {
        warnings.push(format!("emitted without proof: {error}"));
        return Ok(());
    }
    Err(error)
}

fn survey<'a>(
    input: &Path,
    original: &Model,
    prepared: &Model,
    config: &'a Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ground<'a>, Error> {
    demand::check(prepared)?;
    let samples = run::samples(original, config)?;
    progress(Progress::Step("preparing the original"));
    Ok(Ground { bench: run::target(input, &samples, config)?, samples })
}

/// What everybody expects of 16 bits and processors do not give.
fn cpu_warning(to: Precision) -> String {
    let name = to.name();
    format!(
        "{} is not computed faster on CPUs, where runtimes cast or emulate it; --to {name}-weights halves the file at no cost",
        to.dtype()
    )
}

fn unchanged_warning(transformed: &Transformed) -> Option<String> {
    let layers = transformed.plan.layers.len();
    transformed.unchanged.then(|| match layers {
        0 => "nothing to do: the model has no float weights; it is emitted as it is".to_owned(),
        _ => format!("nothing to do: all {layers} layers are kept; the model is emitted as it is"),
    })
}

impl Outcome {
    /// Runs both models everywhere, judges, and looks for what a refusal is due to.
    #[allow(clippy::too_many_arguments)] // The parts of one step of one function.
    fn judge(
        &mut self,
        input: &Path,
        prepared: &Model,
        candidate: Candidate<'_>,
        ground: Ground<'_>,
        cache: &mut Cache,
        config: &Config,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let Ground { mut bench, samples } = ground;
        self.samples = Some(run::summary(&samples));
        if self.samples.is_some_and(|samples| samples.kind == report::SampleKind::Synthetic) {
            self.warnings.push(
                "judged on invented inputs: parity on real ones may differ; give some with --samples"
                    .to_owned(),
            );
        }
        let target = judging::run_both(&mut bench, candidate, &samples, config, progress)?;
        self.warnings.extend(target.failure.clone());
        let verdict = judging::verdict(Some(&target), self.size, config);
        self.runs = vec![target];
        self.runs.extend(judging::run_others(input, candidate, &samples, config, progress)?);
        let failed = |slow: bool| {
            verdict.failures().any(|c| c.name != "shrink" && (c.name == "slowdown") == slow)
        };
        if failed(false) {
            let worst = worst_sample(&samples, self.parity());
            self.culprits =
                blame::culprits(prepared, &self.plan, &self.weights, worst, &mut bench, progress);
        }
        if let (true, Some(sample)) = (failed(true), samples.first()) {
            self.slow_layers =
                measure::slow_layers(prepared, &self.plan, sample, &bench, cache, progress);
        }
        self.verdict = Some(verdict);
        Ok(())
    }

    /// How close the outputs are on the target, if the models ran.
    pub fn parity(&self) -> Option<&Parity> {
        self.runs.first()?.parity.as_ref()
    }

    /// The outcome as a report document.
    pub fn document(&self, command: &str) -> report::Document {
        report::Document {
            tool_version: crate::VERSION.to_owned(),
            command: command.to_owned(),
            original: self.original.clone(),
            candidate: self.emitted.then(|| self.candidate.clone()),
            size: Some(self.size),
            samples: self.samples,
            runs: self.runs.clone(),
            verdict: self.verdict.clone(),
            culprits: self.culprits.clone(),
            slow_layers: self.slow_layers.clone(),
            plan: self.plan_lines(),
            plan_digest: Some(provenance::plan_digest(&self.plan)),
            machine: (!self.runs.is_empty()).then(provenance::machine),
            warnings: self.warnings.clone(),
            ..report::Document::default()
        }
    }

    fn plan_lines(&self) -> Vec<report::PlanLine> {
        let weights: std::collections::HashMap<&str, &QuantizedWeight> =
            self.weights.iter().map(|weight| (weight.name.as_str(), weight)).collect();
        let line = |layer: &modelopt_rewrite::PlannedLayer| {
            let own = || layer.weights.iter().filter_map(|name| weights.get(name.as_str()));
            let changed = layer.scheme != Scheme::Keep;
            report::PlanLine {
                layer: layer.name.clone(),
                op: layer.op.clone(),
                scheme: layer.scheme.to_string(),
                reason: layer.reason.clone(),
                bytes_before: layer.bytes,
                bytes_after: if changed {
                    own().map(|weight| weight.bytes_after).sum()
                } else {
                    layer.bytes
                },
                sqnr_db: own().map(|w| w.sqnr_db).min_by(f64::total_cmp).filter(|_| changed),
            }
        };
        self.plan.layers.iter().map(line).collect()
    }
}

/// The sample on which the worst output was at its worst.
fn worst_sample<'a>(samples: &'a [Sample], parity: Option<&Parity>) -> &'a [Sample] {
    let floats = parity.iter().flat_map(|parity| &parity.outputs).filter_map(|o| o.float.as_ref());
    let worst = floats.min_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
    let place = worst
        .and_then(|float| samples.iter().position(|sample| sample.name == float.worst_sample))
        .unwrap_or(0);
    samples.get(place..=place).unwrap_or_default()
}
