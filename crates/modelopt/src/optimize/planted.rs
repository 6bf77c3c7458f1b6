//! Runs in a planted runtime: what is judged, what is planned again, and what is emitted.

use std::path::PathBuf;

use modelopt_validate::{Bound, Check, Limits, Parity, Unit};

use super::course::Made;
use super::*;
use crate::error::ErrorKind;
use crate::target::planted::{self, Planted, SWITCHES, TRIAL, samples};
use crate::testing::{Bed, Layer};

/// The file of the candidate that is judged.
const OUTPUT: &str = "out.onnx";

pub(super) const INT8: Scheme = Scheme::INT8_WEIGHTS;

/// A network, and the settings of a run of it.
pub(super) struct Stage {
    pub(super) bed: Bed,
    config: Config,
    pub(super) stop: Stop,
    seconds: Option<f64>,
}

impl Stage {
    pub(super) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let bed = Bed::of(&[Layer::Even; 2], 20.0);
        let mut config = planted::named(&bed);
        change(&mut config);
        Stage { bed, config, stop: Stop::default(), seconds: None }
    }

    fn output(&self) -> PathBuf {
        self.bed.path().with_file_name(OUTPUT)
    }

    /// Lets something be done with a run in which the original is running already.
    pub(super) fn run<T>(&self, runtime: &Planted, use_it: impl FnOnce(Course<'_>) -> T) -> T {
        let path = self.bed.path();
        let subject = Arc::new(Subject::as_it_is(&path));
        let budget = Budget::new(Instant::now(), self.seconds, self.stop.clone());
        let given = Given {
            subject: &subject,
            output: &self.output(),
            config: &self.config,
            limits: &self.config.limits(),
            original: &self.bed.original,
            original_bytes: std::fs::metadata(&path).unwrap().len(),
            calibration: None,
            prepared: &self.bed.prepared,
            budget: &budget,
        };
        let ground = self.bed.planted(runtime, samples(2), &self.config).unwrap();
        use_it(Course {
            tensors: crate::ranges::SeenTensors::default(),
            given: &given,
            runs: true,
            ground: Some(ground),
            told: Told::default(),
            meter: None,
            cache: Cache::open(None),
            warnings: Vec::new(),
            searched: Searched::default(),
        })
    }

    /// What comes of the rounds that begin with a plan, after it was emitted or refused.
    fn judged(&self, runtime: &Planted, scheme: Scheme) -> Result<Outcome, Error> {
        self.run(runtime, |mut course| {
            let made = made(&course, self.bed.plan(scheme));
            let given = course.given;
            let file = report::ModelFile::default();
            let (outcome, staged) = course.rounds(made, Vec::new(), &file, &mut |_| {})?;
            outcome.emit(staged, given, &mut |_| {})
        })
    }
}

fn made(course: &Course<'_>, plan: ExplainedPlan) -> Made {
    course.given.made(plan, &mut Vec::new()).unwrap()
}

/// The outcome of a plan that passed, but for what is done to it.
pub(super) fn outcome(
    course: &Course<'_>,
    plan: ExplainedPlan,
    change: impl FnOnce(&mut Outcome),
) -> Outcome {
    let (made, _) = made(course, plan);
    let file = report::ModelFile::default();
    let (mut outcome, _) = course.given.staged(made, &file, &mut |_| {}).unwrap();
    outcome.verdict = Some(verdict(&[]));
    outcome.runs = vec![report::Run { parity: Some(Parity::default()), ..report::Run::default() }];
    change(&mut outcome);
    outcome
}

/// A verdict that fails on these checks.
pub(super) fn verdict(failed: &[&str]) -> Verdict {
    let check = |name: &&str| Check {
        name: (*name).to_owned(),
        subject: "model".to_owned(),
        value: 0.0,
        limit: 1.0,
        bound: Bound::AtLeast,
        unit: Unit::Times,
        pass: false,
        note: None,
    };
    let checks = failed.iter().map(check).collect();
    Verdict { pass: failed.is_empty(), checks, unjudged: Vec::new() }
}

fn scheme(config: &mut Config) {
    config.scheme = Some(INT8);
}

#[test]
fn what_passes_is_emitted_and_smaller() {
    let stage = Stage::new(scheme);
    let outcome = stage.judged(&Planted::noisy(0.01), INT8).unwrap();
    assert!(outcome.emitted && outcome.verdict.as_ref().unwrap().pass && !outcome.unchanged);
    assert_eq!(std::fs::metadata(stage.output()).unwrap().len(), outcome.size.candidate_bytes);
    assert!(outcome.size.candidate_bytes * 2 < outcome.size.original_bytes);
    assert!(outcome.culprits.is_empty() && outcome.trials.is_empty());
    assert_eq!(outcome.samples.unwrap().count, 2);
}

#[test]
fn what_fails_leaves_the_output_as_it_was_and_says_who_is_to_blame() {
    let stage = Stage::new(scheme);
    std::fs::write(stage.output(), "the old one").unwrap();
    let noisy = Planted::new(|run| {
        let error = planted::sum(&[0.1, 0.5], &run.switches());
        Ok(run.times(1.0 + if run.model == OUTPUT { 0.6 } else { error }))
    });
    let outcome = stage.judged(&noisy, INT8).unwrap();
    assert!(!outcome.emitted && !outcome.verdict.as_ref().unwrap().pass);
    assert_eq!(std::fs::read_to_string(stage.output()).unwrap(), "the old one");
    let layers: Vec<&str> = outcome.culprits.iter().map(|c| c.layers[0].as_str()).collect();
    assert_eq!(layers, ["product1", "product0"]);
}

#[test]
fn what_fails_is_emitted_where_the_verdict_is_only_for_information() {
    let stage = Stage::new(|config| {
        scheme(config);
        config.enforcement = Enforcement::Judge;
    });
    let outcome = stage.judged(&Planted::noisy(0.5), INT8).unwrap();
    assert!(outcome.emitted && !outcome.verdict.unwrap().pass);
    assert!(stage.output().exists());
}

#[test]
fn a_candidate_that_crashes_fails_the_verdict() {
    let stage = Stage::new(scheme);
    let runtime = Planted::noisy(0.0).refusing(|model, _| (model == OUTPUT).then(planted::crash));
    let outcome = stage.judged(&runtime, INT8).unwrap();
    assert!(!outcome.emitted && !outcome.verdict.unwrap().pass);
    assert!(outcome.runs[0].failure.is_some());
}

#[test]
fn what_is_wrong_here_ends_it_unless_proof_was_not_asked_for() {
    let runtime =
        || Planted::noisy(0.0).refusing(|model, _| (model == OUTPUT).then(planted::no_memory));
    let stage = Stage::new(scheme);
    let error = stage.judged(&runtime(), INT8).unwrap_err();
    assert!(error.is_of_machine() && !stage.output().exists(), "{error}");
    let stage = Stage::new(|config| {
        scheme(config);
        config.enforcement = Enforcement::Judge;
    });
    let outcome = stage.judged(&runtime(), INT8).unwrap();
    assert!(outcome.emitted && outcome.runs.is_empty() && !outcome.warnings.is_empty());
    // Only the size was judged.
    assert!(outcome.parity().is_none() && outcome.verdict.is_some());
}

#[test]
fn a_plan_that_changes_nothing_runs_nothing_and_gives_the_same_model() {
    let stage = Stage::new(scheme);
    let runtime = Planted::noisy(9.0);
    let outcome = stage.judged(&runtime, Scheme::KEEP).unwrap();
    assert!(outcome.unchanged && outcome.emitted && outcome.verdict.is_none());
    assert_eq!(runtime.loaded(OUTPUT), 0);
    let [before, after] =
        [stage.bed.path(), stage.output()].map(|path| std::fs::read(path).unwrap());
    assert!(before == after, "the bytes differ");
}

#[test]
fn a_run_that_was_stopped_emits_nothing_and_has_no_verdict() {
    let stage = Stage::new(scheme);
    stage.stop.stop();
    let runtime = Planted::noisy(0.0);
    let outcome = stage.judged(&runtime, INT8).unwrap();
    assert!(!outcome.emitted && outcome.verdict.is_none() && !stage.output().exists());
    assert_eq!(outcome.search_end, Some(report::SearchEnd::Stopped));
    assert_eq!(runtime.loaded(OUTPUT), 0);
}

#[test]
fn a_stop_while_it_is_judged_comes_before_a_verdict_that_passes() {
    let stage = Stage::new(scheme);
    let stop = stage.stop.clone();
    let runtime = Planted::new(move |run| {
        if run.model == OUTPUT {
            stop.stop();
        }
        Ok(run.times(1.0))
    });
    let outcome = stage.judged(&runtime, INT8).unwrap();
    assert!(!outcome.emitted && !stage.output().exists());
}

/// The plan of a search, its trials, and whether the plan passes.
type Ended = (ExplainedPlan, Vec<report::Trial>, bool);

/// What a search from the int8 plan finds.
fn searched(stage: &Stage, runtime: &Planted) -> Result<Ended, Error> {
    stage.run(runtime, |mut course| {
        let plan = course.search(&stage.bed.plan(INT8), &mut |_| {})?;
        Ok((plan, course.searched.trials, course.searched.passes))
    })
}

#[test]
fn a_search_goes_on_after_a_crash_and_ends_with_a_full_disk() {
    let stage = Stage::new(|_| {});
    let crashing = Planted::switched(&[0.1, 0.1])
        .refusing(|model, before| (model == TRIAL && before == 0).then(planted::crash));
    let (plan, trials, passes) = searched(&stage, &crashing).unwrap();
    assert!(passes && trials.len() > 1 && trials[0].failure.is_some(), "{trials:?}");
    assert!(plan.changed() > 0);
    let full = Planted::switched(&[0.1, 0.1]).refusing(|model, before| match (model, before) {
        (TRIAL, 0) => Some(planted::crash()),
        (TRIAL, _) => Some(planted::no_memory()),
        _ => None,
    });
    assert!(searched(&stage, &full).unwrap_err().is_of_machine());
}

#[test]
fn a_search_without_switches_ends_all_the_same() {
    let stage = Stage::new(|_| {});
    let refusing =
        Planted::noisy(0.5).refusing(|model, _| (model == SWITCHES).then(planted::crash));
    let (_, trials, passes) = searched(&stage, &refusing).unwrap();
    assert!(!passes && trials.len() > 1);
    assert!(trials.len() < stage.config.search.max_trials);
}

#[test]
fn nothing_is_searched_where_a_scheme_was_asked_for() {
    let stage = Stage::new(scheme);
    let (plan, trials, _) = searched(&stage, &Planted::noisy(0.5)).unwrap();
    assert_eq!((plan, trials.len()), (stage.bed.plan(INT8), 0));
    let stage = Stage::new(|config| config.search.max_trials = 1);
    assert!(searched(&stage, &Planted::noisy(0.5)).unwrap().1.is_empty());
}

#[test]
fn the_verdict_of_a_search_is_its_last_trial() {
    let stage = Stage::new(|_| {});
    let outcome = stage.run(&Planted::noisy(0.01), |mut course| {
        let plan = course.search(&stage.bed.plan(INT8), &mut |_| {}).unwrap();
        let made = made(&course, plan);
        let file = report::ModelFile::default();
        course.rounds(made, Vec::new(), &file, &mut |_| {}).unwrap().0
    });
    assert_eq!((outcome.trials.len(), outcome.search_end), (2, Some(report::SearchEnd::Found)));
    let [found, last] = &outcome.trials[..] else { unreachable!() };
    assert_eq!((&found.schemes, found.pass), (&last.schemes, last.pass));
    assert!(last.blake3.is_some() && last.bytes == outcome.size.candidate_bytes);
}

#[test]
fn a_verdict_fails_on_nothing_but_what_it_names() {
    Stage::new(|_| {}).run(&Planted::noisy(0.01), |course| {
        let plan = ExplainedPlan::new(<_>::default());
        let of = |failed: &[&str]| {
            outcome(&course, plan.clone(), |outcome| outcome.verdict = Some(verdict(failed)))
        };
        assert!(of(&["slowdown"]).fails_on(&["slowdown"]));
        assert!(of(&["slowdown"]).fails_on(&["slowdown", "shrink"]));
        assert!(!of(&["slowdown", "sqnr"]).fails_on(&["slowdown"]));
        assert!(!of(&[]).fails_on(&["slowdown"]), "it passes");
        let mut crashed = of(&["slowdown"]);
        crashed.runs[0].failure = Some("it was killed".to_owned());
        assert!(!crashed.fails_on(&["slowdown"]));
        crashed.runs.clear();
        assert!(crashed.fails_on(&["slowdown"]), "nothing ran that could have failed");
    });
}

#[test]
fn time_that_is_left_bounds_how_long_latency_is_measured() {
    let judging = |seconds: Option<f64>, searched: Searched| {
        let stage = Stage::new(|config| {
            config.measure_latency = true;
            (config.latency.min_seconds, config.latency.max_seconds) = (2.0, 10.0);
        });
        let stage = Stage { seconds, ..stage };
        stage.run(&Planted::noisy(0.01), |course| course.given.judging(&searched))
    };
    let config = judging(None, Searched::default());
    assert_eq!((config.latency.max_seconds, config.measure_latency), (10.0, true));
    let config = judging(Some(8.0), Searched::default());
    assert!(config.latency.max_seconds <= 4.0 && config.latency.min_seconds <= 2.0);
    assert!(judging(Some(0.0), Searched::default()).latency.max_seconds <= 0.0);
    // What fails on parity anyway need not be timed.
    let end = Some(report::SearchEnd::Impossible);
    let failed = Searched { end, ..Searched::default() };
    assert!(!judging(None, failed).measure_latency);
    let passed = Searched { end, passes: true, ..Searched::default() };
    assert!(judging(None, passed).measure_latency);
}

#[test]
fn a_report_has_what_became_of_each_layer() {
    let stage = Stage::new(scheme);
    let outcome = stage.judged(&Planted::noisy(0.01), INT8).unwrap();
    let document = outcome.document("quantize", |_| String::new());
    assert_eq!((document.command.as_str(), document.plan.len()), ("quantize", 2));
    for line in &document.plan {
        assert_eq!(line.scheme, INT8.name());
        assert!(line.bytes_after > 0 && line.bytes_after * 3 < line.bytes_before, "{line:?}");
        assert!(line.sqnr_db.unwrap() > 20.0);
    }
    assert!(document.candidate.is_some() && document.machine.is_some());
    assert_eq!(document.plan_digest, Some(provenance::plan_digest(&outcome.plan)));
    let kept = stage
        .judged(&Planted::noisy(0.01), Scheme::KEEP)
        .unwrap()
        .document("quantize", |_| String::new());
    assert!(kept.plan.iter().all(|line| line.bytes_before == line.bytes_after));
    assert!(kept.plan.iter().all(|line| line.sqnr_db.is_none()) && kept.machine.is_none());
    let refused =
        stage.judged(&Planted::noisy(0.9), INT8).unwrap().document("quantize", |_| String::new());
    assert!(refused.candidate.is_none(), "there is none that anybody could look at");
}

#[test]
fn a_model_that_is_not_there_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["none.onnx", OUTPUT].map(|name| folder.path().join(name));
    let error = optimize(&input, &output, &Config::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Onnx(_)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn who_wants_no_proof_gets_no_run() {
    let bed = Bed::of(&[Layer::Even], 200.0);
    let output = bed.path().with_file_name(OUTPUT);
    let gate = Limits { min_sqnr_db: Some(200.0), ..Limits::default() };
    let config = Config { enforcement: Enforcement::None, gate, ..bed.config.clone() };
    let outcome = optimize(&bed.path(), &output, &config, &mut |_| {}).unwrap();
    assert!(outcome.emitted && outcome.runs.is_empty() && outcome.samples.is_none());
    assert!(!outcome.unchanged && output.exists());
}

#[test]
fn the_same_run_twice_gives_the_same_bytes() {
    let bed = Bed::of(&[Layer::Even, Layer::Outliers, Layer::Even], 20.0);
    let outputs = ["a.onnx", "b.onnx"].map(|name| {
        let output = bed.path().with_file_name(name);
        let outcome = optimize(&bed.path(), &output, &bed.config, &mut |_| {}).unwrap();
        (outcome.plan, outcome.emitted.then(|| std::fs::read(&output).unwrap()))
    });
    assert!(outputs[0].1.is_some() && outputs[0] == outputs[1]);
}

#[test]
fn how_samples_were_split_is_told() {
    let stage = Stage::new(scheme);
    stage.run(&Planted::noisy(0.01), |mut course| {
        let seen = report::Samples { kind: report::SampleKind::Real, count: 2, calibrating: None };
        let mut outcome = outcome(&course, stage.bed.plan(INT8), |outcome| {
            outcome.samples = Some(seen);
        });
        course.describe(&mut outcome);
        assert_eq!(outcome.samples, Some(seen));
        course.ground.as_mut().unwrap().calibrating = samples(3);
        course.describe(&mut outcome);
        assert_eq!(outcome.samples.unwrap().calibrating, Some(3));
    });
}
