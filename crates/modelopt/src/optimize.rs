//! From one file to another: the whole way, with the gate at its end.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use modelopt_graph::Model;
use modelopt_onnx::{self as onnx, SaveOptions, Staged};
use modelopt_report as report;
use modelopt_rewrite::{
    self as rewrite, Interface, Plan, Precision, Prepared, QuantizedWeight, Scheme,
};
use modelopt_validate::{
    Culprit, Limits, Measurements, MetricChange, Parity, SizeChange, SlowLayer, Verdict, judge,
};

use crate::Progress;
use crate::budget::{Budget, Stop};
use crate::clock::TargetClock;
use crate::config::{Config, Enforcement};
use crate::culprits::{self, Suspects};
use crate::error::Error;
use crate::evaluator::{self, Prover};
use crate::ground::{FoundInputs, Told};
use crate::io_cast::IoCast;
use crate::measure::{self, Cache};
use crate::metric::{Meter, MetricError};
use crate::patience::Patience;
use crate::planning::{self, Notes};
use crate::provenance;
use crate::quicken::{self, Clock};
use crate::search::{self, Searcher};
use crate::subject::{Copy, Subject};
use crate::target::{self, Ground};
use crate::transform::{self, Hints, Transformed};
use crate::validation::{self, Candidate};

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
    /// The user's own metric of both models, if there is one and the models were run.
    pub metric: Option<MetricChange>,
    /// The figures against the limits.
    pub verdict: Option<Verdict>,
    /// After a verdict that failed on parity: the layers by the damage that each does alone,
    /// worst first.
    pub culprits: Vec<Culprit>,
    /// After a verdict that failed on latency: the layers that became slower, the most time lost
    /// first.
    pub slow_layers: Vec<SlowLayer>,
    /// After a verdict that failed on latency alone, where a scheme was asked for: a gentler one
    /// that was tried and passes.
    pub alternative: Option<Scheme>,
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

    /// The same, ended by a handle that exists already.
    pub(crate) fn stopped_by(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
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
        let survey = |told: &mut Told, progress: &mut dyn FnMut(Progress)| {
            surveyed(
                planning::survey(&subject, &original, &prepared, config, progress),
                config,
                told,
            )
        };
        let (mut ground, mut told) = (None, Told::default());
        if runs && planning::runs_the_model(config) {
            ground = survey(&mut told, progress)?;
        }
        warnings.append(&mut told.warnings);
        let start = match &mut ground {
            Some(ground) => {
                let mut notes = Notes { cache: &mut cache, warnings: &mut warnings };
                planning::informed(&original, &prepared, ground, config, &mut notes, progress)?
            }
            None => transform::planned(&prepared, config, &Hints::default())?,
        };
        let limits = config.limits();
        let job = Job {
            subject: &subject,
            limits: &limits,
            output,
            config,
            original_bytes: onnx::stored_size(input, &original)?,
            original: &original,
            prepared: &prepared,
            budget: &budget,
        };
        let mut meter = None;
        if let (Some(ground), true) = (&ground, start.changed() > 0) {
            meter = job.meter(ground, &start)?;
        }
        let mut searched = Searched::default();
        let plan = job.search(&start, &mut ground, &mut searched, meter.as_mut(), progress)?;
        let mut of_plan = Vec::new();
        let (mut made, mut casting) = job.made(plan, &mut of_plan)?;
        if !made.unchanged && runs && ground.is_none() && !planning::runs_the_model(config) {
            ground = survey(&mut told, progress)?;
            warnings.append(&mut told.warnings);
            if let Some(ground) = &ground {
                meter = job.meter(ground, &made.plan)?;
            }
        }
        // Reading a file again cannot panic; if it did, the report would lack its digest.
        let original_file = original_file.join().unwrap_or_default();
        let mut rounds = 0;
        let (mut outcome, staged) = loop {
            rounds += 1;
            let skip = made.unchanged || !runs;
            let (mut outcome, staged) = job.staged(made, &original_file, progress)?;
            outcome.warnings = warnings.iter().chain(&of_plan).cloned().collect();
            if ground.is_some() {
                outcome.warnings.extend(subject.warnings.iter().cloned());
            }
            searched.tell(&mut outcome);
            if let (false, Some(ground), false) = (skip, &mut ground, budget.is_stopped()) {
                let place = Where { ground, cache: &mut cache, meter: meter.as_mut() };
                let made = (&staged, casting.as_ref());
                outcome.judge_staged(&job, made, place, &mut searched, progress)?;
            }
            if !skip && outcome.verdict.is_none() && !budget.is_stopped() {
                outcome.verdict = Some(validation::verdict(None, outcome.size, config));
            }
            // What turned out slow or pointless is planned again.
            let meter = meter.as_mut();
            let next = job.next(&outcome, &mut ground, &mut searched, meter, rounds, progress)?;
            let Some(Next { plan, why }) = next else {
                outcome.trials.clone_from(&searched.trials);
                break (outcome, staged);
            };
            drop(staged);
            of_plan.clear();
            (made, casting) = job.made(plan, &mut of_plan)?;
            if why.is_some() && made.unchanged {
                // Why nothing changes is said already.
                of_plan.clear();
            }
            of_plan.extend(why);
        };
        outcome.warnings.extend(cache.close());
        outcome.found_inputs = told.found;
        outcome.emit(staged, &job, progress)
    }
}

/// The original where it runs, with what is to be told of its samples; none where it does not run
/// and the settings let that pass.
fn surveyed<'a>(
    survey: Result<(Ground<'a>, Told), Error>,
    config: &Config,
    told: &mut Told,
) -> Result<Option<Ground<'a>>, Error> {
    match survey {
        Ok((ground, heard)) => {
            *told = heard;
            Ok(Some(ground))
        }
        Err(error) if config.measure => Err(error),
        Err(error) => tolerate(error, config, &mut told.warnings).map(|()| None),
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

/// How many verdicts there are at most: what turned out slow is moved in between. If the last one
/// is slow as well, everything is kept.
const MOST_ROUNDS: usize = 3;

/// A candidate that is no smaller is of use if it takes less than this of the original's time, on a
/// runtime that was named.
const FASTER: f64 = 0.95;

/// What to do after a verdict.
struct Next {
    plan: Plan,
    /// What the user should know of it.
    why: Option<String>,
}

/// What does not change from one candidate to the next.
struct Job<'a> {
    subject: &'a Arc<Subject>,
    output: &'a Path,
    config: &'a Config,
    limits: &'a Limits,
    original: &'a Model,
    original_bytes: u64,
    prepared: &'a Prepared,
    budget: &'a Budget,
}

/// Where and with what a candidate is judged.
struct Where<'a, 'b> {
    ground: &'a mut Ground<'b>,
    cache: &'a mut Cache,
    meter: Option<&'a mut Meter<'b>>,
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

impl<'a> Job<'a> {
    /// The plan that a search from `start` finds; `start` itself where there is nothing to search.
    fn search(
        &self,
        start: &Plan,
        ground: &mut Option<Ground<'_>>,
        searched: &mut Searched,
        meter: Option<&mut Meter<'a>>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Plan, Error> {
        let Some(Ground { bench, samples }) = ground else { return Ok(start.clone()) };
        let used = searched.trials.len();
        if !self.config.searches() || start.changed() == 0 {
            return Ok(start.clone());
        }
        let (patience, wanted) = (Patience::of(bench, self.config), self.config.search.max_trials);
        let runs_each = samples.len() as f64;
        let allowed = patience.allowed(wanted, FEWEST_TRIALS, runs_each);
        searched.warnings.extend(patience.warning(wanted, allowed));
        patience.announce("searching for a plan", allowed as f64 * runs_each, progress);
        let prover = Prover::new(self.prepared, samples, bench, None);
        let searcher = Searcher::new(
            prover,
            self.config,
            self.limits,
            self.budget,
            self.original_bytes,
            meter,
            progress,
        );
        let found = searcher.run(start, used + wanted - allowed);
        match found.metric_error {
            None | Some(MetricError::Stopped) => {}
            Some(error) => return Err(error.into()),
        }
        searched.trials.extend(found.trials);
        searched.end = Some(found.end);
        searched.passes = found.passes;
        if !found.sensitivity.is_empty() {
            searched.sensitivity = found.sensitivity;
        }
        searched.warnings.extend(found.warnings);
        Ok(found.plan)
    }

    /// What evaluates the user's metric, if there is one.
    fn meter(&self, ground: &Ground<'a>, plan: &Plan) -> Result<Option<Meter<'a>>, Error> {
        let casting = plan.io.precision().map(|to| IoCast::of(self.original, to));
        let stop = self.budget.stop();
        validation::meter(
            self.subject.file(),
            self.original,
            &ground.bench,
            self.config,
            &stop,
            casting,
        )
    }

    /// The candidate under a plan, and how it is run.
    fn made(
        &self,
        plan: Plan,
        warnings: &mut Vec<String>,
    ) -> Result<(Transformed, Option<IoCast>), Error> {
        let made = transform::rewritten(self.original, self.prepared, plan, self.config)?;
        let unchanged = if self.subject.is_unsteady { kept_unproven } else { unchanged_warning };
        warnings.extend(unchanged(&made));
        warnings.extend(transform::format_warning(self.original, &made));
        let computes_in = made.plan.layers.iter().find_map(|line| line.scheme.computes_in());
        warnings.extend(computes_in.map(cpu_warning));
        let casting = made.plan.io.precision().map(|to| IoCast::of(self.original, to));
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
            metric: None,
            verdict: None,
            culprits: Vec::new(),
            slow_layers: Vec::new(),
            alternative: None,
            trials: Vec::new(),
            search_end: None,
            sensitivity: Vec::new(),
            warnings: Vec::new(),
            original: original.clone(),
            candidate: provenance::model_file(self.output, staged.path()),
        };
        Ok((outcome, staged))
    }

    /// The plan to judge next, if the last one does not stand: one that is not slow, one that passes
    /// on parity once more, or the model as it is.
    fn next(
        &self,
        outcome: &Outcome,
        ground: &mut Option<Ground<'_>>,
        searched: &mut Searched,
        meter: Option<&mut Meter<'a>>,
        rounds: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Next>, Error> {
        if self.config.enforcement != Enforcement::Gate || self.budget.is_stopped() {
            return Ok(None);
        }
        if let Some(why) = self.pointless(outcome) {
            let plan = kept(&outcome.plan, "there is nothing to gain");
            return Ok(Some(Next { plan, why: Some(why) }));
        }
        let passes = outcome.verdict.as_ref().is_none_or(|verdict| verdict.pass);
        if !passes
            && rounds == 1
            && let Some(next) = self.stored(outcome)?
        {
            return Ok(Some(next));
        }
        if passes || !self.config.searches() {
            return Ok(None);
        }
        if let (true, Some(ground)) = (outcome.fails_on(&["slowdown"]), ground.as_mut()) {
            return Ok(self.quickened(outcome, ground, searched, rounds, progress));
        }
        // Whether errors of layers that were moved cancelled those of others is seen only now.
        if rounds == 1 || rounds >= MOST_ROUNDS {
            return Ok(None);
        }
        let plan = self.search(&outcome.plan, ground, searched, meter, progress)?;
        Ok((plan != outcome.plan && searched.passes).then_some(Next { plan, why: None }))
    }

    /// The plan that only stores weights in 16 bits, where computing in them was asked for and is slower,
    /// and that plan was seen to pass.
    fn stored(&self, outcome: &Outcome) -> Result<Option<Next>, Error> {
        let computes = self.config.computes_in().filter(|_| self.config.plan.is_none());
        let alternative = outcome.alternative.filter(|_| outcome.plan.io == Interface::Float32);
        let (Some(to), Some(scheme)) = (computes, alternative) else { return Ok(None) };
        let config = Config { scheme: Some(scheme), ..self.config.clone() };
        let plan = transform::planned(self.prepared, &config, &Hints::default())?;
        let latency = outcome.runs.first().and_then(|run| run.latency.as_ref());
        let ratio = latency.map_or(f64::NAN, |latency| latency.ratio_median);
        let (name, dtype) = (to.name(), to.dtype());
        let instead = match plan.changed() {
            0 => "and it has no weights to store in fewer bits; it is emitted as it is".to_owned(),
            _ => format!("so weights are only stored in it, as by --to {name}-weights"),
        };
        let why = format!(
            "computed in {dtype} it takes {ratio:.2}x of the time here, {instead}; --max-slowdown {:.2} would let it pass as it was asked for",
            ratio + 0.05
        );
        Ok(Some(Next { plan, why: Some(why) }))
    }

    /// Why the candidate is of no use, if it is of none and nobody asked for it as it is.
    fn pointless(&self, outcome: &Outcome) -> Option<String> {
        let config = self.config;
        let as_asked = config.plan.is_some()
            || config.freeze_inputs
            || outcome.plan.io != Interface::Float32
            || config.gate.min_shrink.is_none_or(|limit| limit > 1.0);
        let SizeChange { original_bytes, candidate_bytes } = outcome.size;
        if as_asked || outcome.unchanged || candidate_bytes < original_bytes {
            return None;
        }
        let verdict = outcome.verdict.as_ref()?;
        if !verdict.pass && !outcome.fails_on(&["slowdown", "shrink"]) {
            return None;
        }
        let judged = verdict.checks.iter().any(|check| check.name == "slowdown");
        let latency = outcome.runs.first().and_then(|run| run.latency.as_ref());
        if latency.is_some_and(|latency| judged && latency.ratio_high < FASTER && latency.is_told())
        {
            return None;
        }
        let more = candidate_bytes - original_bytes;
        Some(format!(
            "nothing to gain: it would be {more} bytes larger and not faster; the model is emitted as it is"
        ))
    }

    /// The plan that is not slow; everything is kept if there is no other.
    fn quickened(
        &self,
        outcome: &Outcome,
        ground: &mut Ground<'_>,
        searched: &mut Searched,
        rounds: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Option<Next> {
        // Whoever asks for a faster model is not given the same.
        let keep = self.config.gate.max_slowdown.is_some_and(|limit| limit >= 1.0);
        let slowdown = outcome.runs.first()?.latency.as_ref()?.ratio_median;
        let found = if rounds < MOST_ROUNDS {
            let mut clock = self.clock(ground, progress)?;
            let found = quicken::quicken(&outcome.plan, slowdown, keep, &mut clock);
            searched.trials.append(&mut clock.trials);
            found
        } else {
            keep.then(|| kept(&outcome.plan, "the model is slower with anything changed"))
        };
        let mut plan = found?;
        search::tidy(&mut plan);
        // Layers that share a weight agree.
        let plan = rewrite::plan_from(self.prepared, &plan).ok()?;
        let why = (plan.changed() == 0).then(|| {
            format!(
                "every plan is slower than the limit allows on {}: the model is emitted as it is",
                ground.bench.used.name
            )
        });
        Some(Next { plan, why })
    }

    fn clock<'c, 'g>(
        &'c self,
        ground: &'c mut Ground<'g>,
        progress: &'c mut dyn FnMut(Progress),
    ) -> Option<TargetClock<'c, 'g>> {
        Some(TargetClock {
            prepared: self.prepared,
            sample: ground.samples.first()?,
            bench: &mut ground.bench,
            config: self.config,
            budget: self.budget,
            started: Instant::now(),
            trials: Vec::new(),
            progress,
        })
    }

    /// A gentler scheme than the one that was asked for, if it passes: on all samples, and briefly
    /// on the clock.
    fn alternative(
        &self,
        ground: &mut Ground<'_>,
        searched: &mut Searched,
        progress: &mut dyn FnMut(Progress),
    ) -> Option<Scheme> {
        let scheme = match self.config.scheme? {
            Scheme::INT8_DYNAMIC => Scheme::INT8_WEIGHTS,
            Scheme::FP16 => Scheme::FP16_WEIGHTS,
            Scheme::BF16 => Scheme::BF16_WEIGHTS,
            _ => return None,
        };
        let config = Config { scheme: Some(scheme), io: Interface::Float32, ..self.config.clone() };
        let plan = transform::planned(self.prepared, &config, &Hints::default()).ok()?;
        progress(Progress::Step("trying a gentler scheme"));
        let mut prover = Prover::new(self.prepared, &ground.samples, &mut ground.bench, None);
        let all = prover.all();
        let proved = prover.prove(&plan, &all).ok()?;
        let size =
            SizeChange { original_bytes: self.original_bytes, candidate_bytes: proved.bytes };
        let measured = Measurements { parity: Some(&proved.parity), size, latency: None };
        if !judge(self.limits, &measured).pass {
            return None;
        }
        let mut clock = self.clock(ground, progress)?;
        let timed = clock.time(&plan, &format!("{scheme} instead"));
        searched.trials.append(&mut clock.trials);
        timed.ok()?.passes.then_some(scheme)
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

/// The plan with everything kept.
fn kept(plan: &Plan, reason: &str) -> Plan {
    let mut plan = plan.clone();
    for line in plan.layers.iter_mut().filter(|line| line.scheme != Scheme::KEEP) {
        (line.scheme, line.at_load) = (Scheme::KEEP, false);
        reason.clone_into(&mut line.reason);
    }
    search::tidy(&mut plan);
    plan
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
        place: Where<'_, '_>,
        searched: &mut Searched,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let config = &job.judging(searched);
        let Where { ground, cache, meter } = place;
        let Ground { bench, samples } = ground;
        self.samples = Some(target::summary(samples));
        if self.samples.is_some_and(|samples| samples.kind == report::SampleKind::Synthetic) {
            self.warnings.push(
                "judged on invented inputs: parity on real ones may differ; give some with --samples"
                    .to_owned(),
            );
        }
        let target = validation::run_somewhere(bench, candidate, samples, config, progress)?;
        self.warnings.extend(target.failure.clone());
        self.warnings.extend(bench.left_out());
        self.warnings.extend(bench.unsteady());
        let mut verdict = validation::verdict(Some(&target), self.size, config);
        if let (Some(meter), None) = (meter, &target.failure) {
            progress(Progress::Step("evaluating the metric"));
            let digest = provenance::essence(&self.plan);
            let measured =
                meter.measure(&digest, |path| search::carried_out(job.prepared, &self.plan, path));
            self.metric = Some(measured?);
            validation::add_metric(&mut verdict, self.metric.as_ref());
        }
        self.runs = vec![target];
        self.runs.extend(validation::run_others(
            job.subject,
            candidate,
            samples,
            config,
            progress,
        )?);
        let failed = |slow: bool| {
            verdict.failures().any(|c| c.name != "shrink" && (c.name == "slowdown") == slow)
        };
        if failed(false) && job.budget.allows(culprits::PATIENCE) {
            let worst = self.parity().and_then(evaluator::worst_sqnr).map(|(_, sample)| sample);
            let worst = worst.and_then(|name| samples.iter().position(|s| s.name == name));
            let mut prover = Prover::new(job.prepared, samples, bench, None);
            let suspects = match searched.sensitivity.as_slice() {
                [] => Suspects::Weights(&self.weights),
                ranked => Suspects::Ranked(ranked),
            };
            let (plan, worst) = (&self.plan, worst.unwrap_or(0));
            self.culprits = culprits::culprits(&mut prover, plan, &suspects, worst, progress);
        } else if failed(false) {
            self.culprits = searched.sensitivity.iter().filter_map(predicted).collect();
            self.culprits.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
        }
        let may_keep = config.gate.max_slowdown.is_some_and(|limit| limit >= 1.0);
        let goes_down = config.searches() && may_keep && !failed(false);
        if let (true, false, Some(sample)) = (failed(true), goes_down, samples.first())
            && job.budget.allows(culprits::PATIENCE)
        {
            self.slow_layers =
                measure::slow_layers(job.prepared, &self.plan, sample, bench, cache, progress);
            if config.enforcement == Enforcement::Gate && !failed(false) {
                self.alternative = job.alternative(ground, searched, progress);
                self.trials.clone_from(&searched.trials);
            }
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

    /// Judges a candidate that was written, by a copy where it is run as one.
    fn judge_staged<'b>(
        &mut self,
        job: &Job<'b>,
        (staged, casting): (&Staged, Option<&IoCast>),
        place: Where<'_, 'b>,
        searched: &mut Searched,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let known = searched.end.is_some() && !searched.passes;
        let copy = job.subject.copies().of_file(staged.path())?;
        let path = copy.as_ref().map_or(staged.path(), Copy::path);
        let judged = self.judge(job, Candidate { path, casting, known }, place, searched, progress);
        match judged {
            // What was stopped has no verdict.
            Err(_) if job.budget.is_stopped() => Ok(()),
            Err(error) => tolerate(error, job.config, &mut self.warnings),
            Ok(()) => Ok(()),
        }
    }

    /// Puts the candidate at its target, if the verdict is good or the settings say so.
    fn emit(
        mut self,
        staged: Staged,
        job: &Job<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, Error> {
        let pass = self.verdict.as_ref().is_none_or(|verdict| verdict.pass);
        let stopped = job.budget.is_stopped();
        self.emitted = !stopped && (pass || job.config.enforcement != Enforcement::Gate);
        if stopped {
            self.search_end = Some(report::SearchEnd::Stopped);
        }
        if self.emitted {
            progress(Progress::Step("emitting"));
            staged.commit()?;
        }
        Ok(self)
    }

    /// The run that the verdict is about, as the last trial of a search.
    fn as_trial(&self, verdict: &Verdict) -> report::Trial {
        let run = self.runs.first();
        let worst = self.parity().and_then(evaluator::worst_sqnr);
        report::Trial {
            what: "the verdict".to_owned(),
            schemes: search::schemes(&self.plan),
            bytes: self.size.candidate_bytes,
            sqnr_db: worst.map(|(sqnr_db, _)| sqnr_db),
            slowdown: run.and_then(|run| run.latency.as_ref()).map(|latency| latency.ratio_median),
            metric: self.metric.as_ref().map(|change| change.candidate),
            pass: verdict.pass,
            failure: run.and_then(|run| run.failure.clone()),
            blake3: self.candidate.blake3.clone(),
        }
    }

    /// Whether the verdict failed, and on nothing but these checks.
    fn fails_on(&self, names: &[&str]) -> bool {
        let only = |verdict: &Verdict| {
            verdict.failures().all(|check| names.contains(&check.name.as_str()))
        };
        let ran = self.runs.first().is_none_or(|run| run.failure.is_none());
        ran && self.verdict.as_ref().is_some_and(|verdict| !verdict.pass && only(verdict))
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
            metric: self.metric.clone(),
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
            let changed = layer.scheme != Scheme::KEEP;
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

/// What a layer is predicted to cost alone, as one that is to blame.
fn predicted(entry: &report::Sensitivity) -> Option<Culprit> {
    Some(Culprit {
        layers: entry.layers.clone(),
        scheme: entry.scheme.clone(),
        sqnr_db: entry.alone_db?,
        predicted: true,
    })
}
