//! From one file to another: the whole way, with the gate at its end.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use modelopt_graph::Model;
use modelopt_onnx::{self as onnx, SaveOptions, Staged};
use modelopt_report as report;
use modelopt_rewrite::{Plan, Precision, QuantizedWeight, Scheme};
use modelopt_validate::{Culprit, Parity, SizeChange, SlowLayer, Verdict};

use crate::Progress;
use crate::blame;
use crate::budget::{Budget, Stop};
use crate::casting::Casting;
use crate::config::{Config, Enforcement};
use crate::error::Error;
use crate::ground::FoundInputs;
use crate::judging::{self, Candidate};
use crate::measure::{self, Cache};
use crate::patience::Patience;
use crate::planning::{self, Notes};
use crate::provenance;
use crate::prover::{self, Prover};
use crate::run::{self, Ground};
use crate::search::{self, Searcher};
use crate::subject::{Copy, Subject};
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
    /// What invented inputs had to be for the original to run, where the first guess was refused.
    pub found_inputs: Option<FoundInputs>,
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
    /// The plans that a search ran and judged; the verdict is the last.
    pub trials: Vec<report::Trial>,
    /// Why the search ended, if there was one.
    pub search_end: Option<report::SearchEnd>,
    /// What each layer costs, where a search measured it.
    pub sensitivity: Vec<report::Sensitivity>,
    /// What the user should know.
    pub warnings: Vec<String>,
    original: report::ModelFile,
    candidate: report::ModelFile,
}

/// A run from one file to another that can be ended early.
///
/// ```no_run
/// # fn main() -> Result<(), modelopt::Error> {
/// let config = modelopt::Config::default();
/// let search = modelopt::Search::new(&config);
/// let stop = search.stop();
/// std::thread::spawn(move || {
///     std::thread::sleep(std::time::Duration::from_secs(60));
///     stop.stop();
/// });
/// let outcome = search.run("model.onnx".as_ref(), "model.int8.onnx".as_ref(), &mut |event| {
///     if let modelopt::Progress::Trial(trial) = event {
///         println!("{}: {:?} dB", trial.what, trial.sqnr_db);
///     }
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Search<'a> {
    config: &'a Config,
    stop: Stop,
}

impl<'a> Search<'a> {
    /// A run with these settings.
    pub fn new(config: &'a Config) -> Self {
        Search { config, stop: Stop::default() }
    }

    /// A handle that ends the run from elsewhere: nothing is emitted then, and the outcome holds the
    /// best plan found.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Makes a candidate of the model at `input`, runs both, and writes it to `output` if the
    /// verdict is good or the settings say so. `output` is untouched otherwise, and replaced
    /// atomically. Where nobody asked for a scheme or gave a plan, the plan is searched for.
    pub fn run(
        self,
        input: &Path,
        output: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, Error> {
        let config = self.config;
        let budget = Budget::new(Instant::now(), config.search.time_budget, self.stop);
        progress(Progress::Step("loading"));
        let original = onnx::load(input)?;
        let file = input.to_owned();
        let original_file = std::thread::spawn(move || provenance::model_file(&file, &file));
        progress(Progress::Step("planning"));
        let prepared = transform::prepared(&original, config)?;
        let runs = config.enforcement != Enforcement::None;
        let subject = Arc::new(if runs {
            Subject::new(input, &original, &[], config)?
        } else {
            Subject::as_it_is(input)
        });
        let mut warnings = Vec::new();
        let mut cache = Cache::open(config.measure_cache.as_deref());
        let runs = runs
            && !(planning::runs_the_model(config) && transform::leaves_alone(&prepared, config)?);
        let (mut ground, mut found_inputs) = (None, None);
        if runs && planning::runs_the_model(config) {
            match planning::survey(&subject, &original, &prepared, config, progress) {
                Ok((surveyed, told)) => {
                    warnings.extend(told.warnings);
                    (ground, found_inputs) = (Some(surveyed), told.found);
                }
                Err(error) if config.measure => return Err(error),
                Err(error) => tolerate(error, config, &mut warnings)?,
            }
        }
        let mut start = match &mut ground {
            Some(ground) => {
                let mut notes = Notes { cache: &mut cache, warnings: &mut warnings };
                planning::informed(&original, &prepared, ground, config, &mut notes, progress)?
            }
            None => transform::planned(&prepared, config, &Hints::default())?,
        };
        let job = Job {
            subject: &subject,
            output,
            config,
            original_bytes: onnx::stored_size(input, &original)?,
            original: &original,
            prepared: &prepared,
            budget: &budget,
        };
        let mut searched = Searched::default();
        let plan = job.search(&start, &mut ground, &mut searched, progress);
        let (mut made, mut casting) = job.made(plan, &mut warnings)?;
        let skip = made.unchanged || !runs;
        if !skip && ground.is_none() && !planning::runs_the_model(config) {
            match planning::survey(&subject, &original, &prepared, config, progress) {
                Ok((surveyed, told)) => {
                    warnings.extend(told.warnings);
                    (ground, found_inputs) = (Some(surveyed), told.found);
                }
                Err(error) => tolerate(error, config, &mut warnings)?,
            }
        }
        // Reading a file again cannot panic; if it did, the report would lack its digest.
        let original_file = original_file.join().unwrap_or_default();
        let mut rounds = 0;
        let (mut outcome, staged) = loop {
            rounds += 1;
            let (mut outcome, staged) = job.staged(made, &original_file, progress)?;
            outcome.warnings.clone_from(&warnings);
            if ground.is_some() {
                outcome.warnings.extend(subject.warnings.iter().cloned());
            }
            searched.tell(&mut outcome);
            if let (false, Some(ground), false) = (skip, &mut ground, budget.is_stopped()) {
                let known = searched.end.is_some() && !searched.passes;
                let copy = subject.copies().of_file(staged.path())?;
                let path = copy.as_ref().map_or(staged.path(), Copy::path);
                let casting = casting.as_ref();
                let candidate = Candidate { path, casting, known };
                let judged =
                    outcome.judge(&job, candidate, ground, &mut cache, &mut searched, progress);
                if let Err(error) = judged {
                    tolerate(error, config, &mut outcome.warnings)?;
                }
            }
            // What turned out slow goes down the ladder, and parity is looked at again.
            let Some(next) = quickened(&outcome, &start).filter(|_| rounds < MOST_ROUNDS) else {
                break (outcome, staged);
            };
            drop(staged);
            start = next;
            let plan = job.search(&start, &mut ground, &mut searched, progress);
            (made, casting) = job.made(plan, &mut Vec::new())?;
        };
        outcome.warnings.extend(cache.close());
        outcome.found_inputs = found_inputs;
        if !skip && outcome.verdict.is_none() && !budget.is_stopped() {
            outcome.verdict = Some(judging::verdict(None, outcome.size, config));
        }
        let pass = outcome.verdict.as_ref().is_none_or(|verdict| verdict.pass);
        outcome.emitted = !budget.is_stopped() && (pass || config.enforcement != Enforcement::Gate);
        if budget.is_stopped() {
            outcome.search_end = Some(report::SearchEnd::Stopped);
        }
        if outcome.emitted {
            progress(Progress::Step("emitting"));
            staged.commit()?;
        }
        Ok(outcome)
    }
}

/// [`Search::run`] without a handle to end it early.
pub fn optimize(
    input: &Path,
    output: &Path,
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, Error> {
    Search::new(config).run(input, output, progress)
}

/// How many trials are made however long they take.
const FEWEST_TRIALS: usize = 4;

/// How often layers that turned out slow are moved, and the rest searched again.
const MOST_ROUNDS: usize = 2;

/// What does not change from one candidate to the next.
struct Job<'a> {
    subject: &'a Arc<Subject>,
    output: &'a Path,
    config: &'a Config,
    original: &'a Model,
    original_bytes: u64,
    prepared: &'a Model,
    budget: &'a Budget,
}

/// What searching told, over all rounds.
#[derive(Default)]
struct Searched {
    trials: Vec<report::Trial>,
    end: Option<report::SearchEnd>,
    passes: bool,
    sensitivity: Vec<report::Sensitivity>,
    warnings: Vec<String>,
}

impl Searched {
    fn tell(&self, outcome: &mut Outcome) {
        outcome.trials.clone_from(&self.trials);
        outcome.search_end = self.end;
        outcome.sensitivity.clone_from(&self.sensitivity);
        outcome.warnings.extend(self.warnings.iter().cloned());
    }
}

impl Job<'_> {
    /// The plan that a search from `start` finds; `start` itself where there is nothing to search.
    fn search(
        &self,
        start: &Plan,
        ground: &mut Option<Ground<'_>>,
        searched: &mut Searched,
        progress: &mut dyn FnMut(Progress),
    ) -> Plan {
        let Some(Ground { bench, samples }) = ground else { return start.clone() };
        let used = searched.trials.len();
        if !self.config.searches() || start.changed() == 0 {
            return start.clone();
        }
        let (patience, wanted) = (Patience::of(bench, self.config), self.config.search.max_trials);
        let runs_each = samples.len() as f64;
        let allowed = patience.allowed(wanted, FEWEST_TRIALS, runs_each);
        searched.warnings.extend(patience.warning(wanted, allowed));
        patience.announce("searching for a plan", allowed as f64 * runs_each, progress);
        let prover = Prover::new(self.prepared, samples, bench, None);
        let searcher =
            Searcher::new(prover, self.config, self.budget, self.original_bytes, progress);
        let found = searcher.run(start, used + wanted - allowed);
        searched.trials.extend(found.trials);
        searched.end = Some(found.end);
        searched.passes = found.passes;
        if !found.sensitivity.is_empty() {
            searched.sensitivity = found.sensitivity;
        }
        searched.warnings.extend(found.warnings);
        found.plan
    }

    /// The candidate under a plan, and how it is run.
    fn made(
        &self,
        plan: Plan,
        warnings: &mut Vec<String>,
    ) -> Result<(Transformed, Option<Casting>), Error> {
        let made = transform::rewritten(self.original, self.prepared, plan, self.config)?;
        let unchanged = if self.subject.is_unsteady { kept_unproven } else { unchanged_warning };
        warnings.extend(unchanged(&made));
        warnings.extend(transform::format_warning(self.original, &made));
        let computes_in = self.config.computes_in().filter(|_| !made.unchanged);
        warnings.extend(computes_in.map(cpu_warning));
        let casting = made.plan.io.precision().map(|to| Casting::of(self.original, to));
        Ok((made, casting))
    }

    /// Writes a candidate beside the target.
    fn staged(
        &self,
        mut made: Transformed,
        original: &report::ModelFile,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Outcome, Staged), Error> {
        if !made.unchanged {
            provenance::stamp(&mut made.model, original.blake3.clone(), &made.plan);
        }
        progress(Progress::Step("writing the candidate"));
        let save = SaveOptions { external_data: self.config.external_data };
        // The candidate's weights are on disk then.
        let staged = Staged::write(&made.model, self.output, save)?;
        let size =
            SizeChange { original_bytes: self.original_bytes, candidate_bytes: staged.size() };
        let outcome = Outcome {
            emitted: false,
            unchanged: made.unchanged,
            plan: made.plan,
            weights: made.weights,
            size,
            samples: None,
            found_inputs: None,
            runs: Vec::new(),
            verdict: None,
            culprits: Vec::new(),
            slow_layers: Vec::new(),
            trials: Vec::new(),
            search_end: None,
            sensitivity: Vec::new(),
            warnings: Vec::new(),
            original: original.clone(),
            candidate: provenance::model_file(self.output, staged.path()),
        };
        Ok((outcome, staged))
    }

    /// The settings for judging what a search found: no longer than its time allows, and without
    /// latency where parity is known to fail.
    fn judging(&self, searched: &Searched) -> Config {
        let mut config = self.config.clone();
        if let Some(left) = self.budget.left() {
            // Runs on either side of measuring take time, too.
            let most = left.as_secs_f64() * 0.5;
            config.latency.max_seconds = config.latency.max_seconds.min(most);
            config.latency.min_seconds = config.latency.min_seconds.min(most);
        }
        config.measure_latency &= searched.end.is_none() || searched.passes;
        config
    }
}

/// The plan to start again from, where layers turned out slow and nothing else failed.
fn quickened(outcome: &Outcome, start: &Plan) -> Option<Plan> {
    outcome.search_end?;
    let verdict = outcome.verdict.as_ref()?;
    let only_slow = verdict.failures().all(|check| check.name == "slowdown");
    if !only_slow || outcome.slow_layers.is_empty() {
        return None;
    }
    let mut next = start.clone();
    for slow in &outcome.slow_layers {
        for line in next.layers.iter_mut().filter(|line| line.name == slow.layer) {
            line.scheme = match line.scheme {
                Scheme::Int8Dynamic => Scheme::Int8Weights,
                _ => Scheme::Keep,
            };
            line.reason =
                format!("measured: {:.2}x of float32's time as {}", slow.slowdown, slow.scheme);
        }
    }
    (next != *start).then_some(next)
}

/// What cannot be proven is emitted only where the user said to emit whatever the verdict. Samples
/// that are not what the model takes are a mistake even then.
fn tolerate(error: Error, config: &Config, warnings: &mut Vec<String>) -> Result<(), Error> {
    if config.enforcement == Enforcement::Judge && !error.is_mistake() {
        warnings.push(format!("emitted without proof: {error}"));
        return Ok(());
    }
    Err(error)
}

/// What everybody expects of 16 bits and processors do not give.
fn cpu_warning(to: Precision) -> String {
    let name = to.name();
    format!(
        "{} is not computed faster on CPUs, where runtimes cast or emulate it; --to {name}-weights halves the file at no cost",
        to.dtype()
    )
}

/// What an original that differs from run to run leaves of a plan that depends on what it computes.
fn kept_unproven(transformed: &Transformed) -> Option<String> {
    transformed.unchanged.then(|| {
        format!(
            "all {} layers are kept: outputs that differ from run to run prove nothing; the model is emitted as it is",
            transformed.plan.layers.len()
        )
    })
}

fn unchanged_warning(transformed: &Transformed) -> Option<String> {
    let layers = transformed.plan.layers.len();
    transformed.unchanged.then(|| match layers {
        _ if transformed.plan.layers.iter().any(|l| l.reason == transform::NARROW_ALREADY) => {
            let why = transform::NARROW_ALREADY;
            format!("nothing to do: {why}; the model is emitted as it is")
        }
        0 => "nothing to do: the model has no float weights; it is emitted as it is".to_owned(),
        1 => "nothing to do: the only layer is kept; the model is emitted as it is".to_owned(),
        _ => format!("nothing to do: all {layers} layers are kept; the model is emitted as it is"),
    })
}

impl Outcome {
    /// Runs both models everywhere, judges, and looks for what a refusal is due to.
    fn judge(
        &mut self,
        job: &Job<'_>,
        candidate: Candidate<'_>,
        ground: &mut Ground<'_>,
        cache: &mut Cache,
        searched: &mut Searched,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let config = &job.judging(searched);
        let Ground { bench, samples } = ground;
        self.samples = Some(run::summary(samples));
        if self.samples.is_some_and(|samples| samples.kind == report::SampleKind::Synthetic) {
            self.warnings.push(
                "judged on invented inputs: parity on real ones may differ; give some with --samples"
                    .to_owned(),
            );
        }
        let target = judging::run_somewhere(bench, candidate, samples, config, progress)?;
        self.warnings.extend(target.failure.clone());
        self.warnings.extend(bench.left_out());
        let verdict = judging::verdict(Some(&target), self.size, config);
        self.runs = vec![target];
        self.runs.extend(judging::run_others(job.subject, candidate, samples, config, progress)?);
        let failed = |slow: bool| {
            verdict.failures().any(|c| c.name != "shrink" && (c.name == "slowdown") == slow)
        };
        if failed(false) && searched.sensitivity.is_empty() && job.budget.allows(blame::PATIENCE) {
            let worst = self.parity().and_then(prover::worst_sqnr).map(|(_, sample)| sample);
            let worst = worst.and_then(|name| samples.iter().position(|s| s.name == name));
            let mut prover = Prover::new(job.prepared, samples, bench, None);
            self.culprits = blame::culprits(
                &mut prover,
                &self.plan,
                &self.weights,
                worst.unwrap_or(0),
                progress,
            );
        } else if failed(false) {
            self.culprits = searched.sensitivity.iter().filter_map(culprit).collect();
            self.culprits.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
        }
        if let (true, Some(sample)) = (failed(true), samples.first())
            && job.budget.allows(blame::PATIENCE)
        {
            self.slow_layers =
                measure::slow_layers(job.prepared, &self.plan, sample, bench, cache, progress);
        }
        if searched.end.is_some() {
            let trial = self.as_trial(&verdict);
            progress(Progress::Trial(Box::new(trial.clone())));
            searched.trials.push(trial.clone());
            self.trials.push(trial);
        }
        self.verdict = Some(verdict);
        Ok(())
    }

    /// The run that the verdict is about, as the last trial of a search.
    fn as_trial(&self, verdict: &Verdict) -> report::Trial {
        let run = self.runs.first();
        let worst = self.parity().and_then(prover::worst_sqnr);
        report::Trial {
            what: "the verdict".to_owned(),
            schemes: search::schemes(&self.plan),
            bytes: self.size.candidate_bytes,
            sqnr_db: worst.map(|(sqnr_db, _)| sqnr_db),
            slowdown: run.and_then(|run| run.latency.as_ref()).map(|latency| latency.ratio_median),
            pass: verdict.pass,
            failure: run.and_then(|run| run.failure.clone()),
            blake3: self.candidate.blake3.clone(),
        }
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
            trials: self.trials.clone(),
            search_end: self.search_end,
            sensitivity: self.sensitivity.clone(),
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

/// What a layer costs alone, as one that is to blame.
fn culprit(entry: &report::Sensitivity) -> Option<Culprit> {
    Some(Culprit {
        layers: entry.layers.clone(),
        scheme: entry.scheme.clone(),
        sqnr_db: entry.alone_db?,
    })
}
