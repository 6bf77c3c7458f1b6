//! From one file to another: the whole way, with the gate at its end.

use std::path::Path;

use modelopt_onnx::{self as onnx, SaveOptions, Staged};
use modelopt_report as report;
use modelopt_rewrite::{Plan, QuantizedWeight, Scheme};
use modelopt_runtime::Sample;
use modelopt_validate::{
    CompareError, Culprit, Measurements, Parity, Side, SizeChange, Verdict, judge,
};

use crate::Progress;
use crate::blame;
use crate::config::{Config, Enforcement};
use crate::demand;
use crate::error::Error;
use crate::run::{self, Ran};
use crate::transform::{self, Transformed};

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
    /// Where the models ran, if they did.
    pub ran: Option<Ran>,
    /// How many samples they ran on, and whether those were real.
    pub samples: Option<report::Samples>,
    /// How close the outputs are.
    pub parity: Option<Parity>,
    /// The figures against the limits.
    pub verdict: Option<Verdict>,
    /// After a failed verdict: the layers by the damage that each does alone, worst first.
    pub culprits: Vec<Culprit>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What running both models told.
#[derive(Default)]
struct Validation {
    ran: Option<Ran>,
    samples: Option<report::Samples>,
    parity: Option<Parity>,
    failure: Option<String>,
    culprits: Vec<Culprit>,
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
    progress(Progress::Step("quantizing"));
    let prepared = transform::prepared(&original, config)?;
    let transformed = transform::rewritten(&original, &prepared, config)?;
    progress(Progress::Step("writing the candidate"));
    let save = SaveOptions { external_data: config.external_data };
    let staged = Staged::write(&transformed.model, output, save)?;
    let size = SizeChange {
        original_bytes: onnx::stored_size(input, &original)?,
        candidate_bytes: staged.size(),
    };
    let mut warnings = warnings(&transformed);
    let skip = transformed.unchanged || config.enforcement == Enforcement::None;
    let validation = if skip {
        Validation::default()
    } else {
        match validate(input, &original, &prepared, &transformed, &staged, config, progress) {
            Ok(validation) => validation,
            Err(error) if config.enforcement == Enforcement::Judge => {
                warnings.push(format!("emitted without proof: {error}"));
                Validation::default()
            }
            Err(error) => return Err(error),
        }
    };
    let Transformed { plan, weights, unchanged, .. } = transformed;
    let verdict = (!skip).then(|| {
        let measured = Measurements { parity: validation.parity.as_ref(), size, latency: None };
        let mut verdict = judge(&config.gate, &measured);
        verdict.pass &= validation.failure.is_none();
        verdict
    });
    if let Some(failure) = validation.failure {
        warnings.push(failure);
    }
    if validation.samples.is_some_and(|samples| samples.kind == report::SampleKind::Synthetic) {
        warnings.push(
            "judged on invented inputs: parity on real ones may differ; give some with --samples"
                .to_owned(),
        );
    }
    let pass = verdict.as_ref().is_none_or(|verdict| verdict.pass);
    let emitted = pass || config.enforcement != Enforcement::Gate;
    if emitted {
        progress(Progress::Step("emitting"));
        staged.commit()?;
    }
    Ok(Outcome {
        emitted,
        unchanged,
        plan,
        weights,
        size,
        ran: validation.ran,
        samples: validation.samples,
        parity: validation.parity,
        verdict,
        culprits: validation.culprits,
        warnings,
    })
}

fn warnings(transformed: &Transformed) -> Vec<String> {
    let mut warnings = Vec::new();
    if transformed.unchanged {
        let layers = transformed.plan.layers.len();
        warnings.push(match layers {
            0 => "nothing to quantize: the model has no float weights; it is emitted as it is"
                .to_owned(),
            _ => format!(
                "nothing to quantize: all {layers} weight layers are kept; the model is emitted as it is"
            ),
        });
    }
    warnings
}

#[allow(clippy::too_many_arguments)] // The parts of one step of one function.
fn validate(
    input: &Path,
    original: &modelopt_graph::Model,
    prepared: &modelopt_graph::Model,
    transformed: &Transformed,
    staged: &Staged,
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Validation, Error> {
    demand::check(prepared)?;
    let samples = run::samples(original, config)?;
    progress(Progress::Step("preparing the original"));
    let mut bench = run::bench(input, &samples, config)?;
    let mut validation = Validation {
        ran: Some(bench.ran.clone()),
        samples: Some(run::summary(&samples)),
        ..Validation::default()
    };
    progress(Progress::Step("preparing the candidate"));
    let compared = match bench.prepare(staged.path()) {
        Ok(mut session) => {
            progress(Progress::Step("comparing"));
            modelopt_validate::compare(
                bench.original.as_mut(),
                session.as_mut(),
                &samples,
                &mut |done, total| progress(Progress::Part { done, total }),
            )
        }
        Err(source) => {
            let sample = samples.first().map(|sample| sample.name.clone()).unwrap_or_default();
            Err(CompareError::Run { side: Side::Candidate, sample, source })
        }
    };
    match compared {
        Ok(parity) => validation.parity = Some(parity),
        // A candidate that does not run where the original does is a failed verdict.
        Err(CompareError::Run { side: Side::Candidate, sample, source }) => {
            let cause = run::without_path(&source);
            validation.failure = Some(format!("the candidate fails on sample '{sample}': {cause}"));
        }
        Err(error) => return Err(error.into()),
    }
    let too_far = validation.parity.as_ref().is_some_and(|parity| {
        let size = SizeChange { original_bytes: 1, candidate_bytes: 1 };
        !judge(&config.gate, &Measurements { parity: Some(parity), size, latency: None }).pass
    });
    if too_far {
        let Transformed { plan, weights, .. } = transformed;
        let worst = worst_sample(&samples, validation.parity.as_ref());
        validation.culprits = blame::culprits(prepared, plan, weights, worst, &mut bench, progress);
    }
    Ok(validation)
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

impl Outcome {
    /// The outcome as a report document.
    pub fn document(&self, command: &str, input: &Path, output: &Path) -> report::Document {
        let after: std::collections::HashMap<&str, u64> =
            self.weights.iter().map(|w| (w.name.as_str(), w.bytes_after)).collect();
        let plan = self.plan.layers.iter().map(|layer| report::PlanLine {
            layer: layer.name.clone(),
            op: layer.op.clone(),
            scheme: layer.scheme.to_string(),
            reason: layer.reason.clone(),
            bytes_before: layer.bytes,
            bytes_after: if layer.scheme == Scheme::Keep {
                layer.bytes
            } else {
                layer.weights.iter().filter_map(|name| after.get(name.as_str())).sum()
            },
        });
        report::Document {
            tool_version: crate::VERSION.to_owned(),
            command: command.to_owned(),
            original: report::FileName::from(input),
            candidate: self.emitted.then(|| report::FileName::from(output)),
            size: Some(self.size),
            runtime: self.ran.as_ref().map(Ran::used),
            samples: self.samples,
            plan: plan.collect(),
            parity: self.parity.clone(),
            verdict: self.verdict.clone(),
            culprits: self.culprits.clone(),
            warnings: self.warnings.clone(),
            ..report::Document::default()
        }
    }
}
