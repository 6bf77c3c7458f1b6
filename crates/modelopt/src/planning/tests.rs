//! When the model runs to be planned, and what is told of it.

use modelopt_graph::DataType;
use modelopt_rewrite::Interface;

use super::*;
use crate::config::Enforcement;
use crate::target::planted::{self, Planted, TRIAL, samples};
use crate::testing::{Bed, Layer};

fn config(change: fn(&mut Config)) -> Config {
    let mut config = Config { enforcement: Enforcement::Judge, ..Config::default() };
    change(&mut config);
    config
}

#[test]
fn the_model_runs_to_be_planned_where_the_plan_depends_on_it() {
    let runs: [fn(&mut Config); 5] = [
        |config| config.enforcement = Enforcement::Gate,
        |config| config.measure = true,
        |config| config.scheme = Some(Scheme::FP16),
        |config| config.scheme = Some(Scheme::BF16_WEIGHTS),
        |config| config.search.smoothing = Smoothing::On,
    ];
    for (at, change) in runs.into_iter().enumerate() {
        let mut config = config(change);
        assert!(runs_the_model(&config), "{at}");
        config.plan = Some(modelopt_rewrite::Plan::new(<_>::default()));
        assert!(!runs_the_model(&config), "a plan that is given is carried out: {at}");
    }
    let rests: [fn(&mut Config); 4] = [
        |_| {},
        |config| config.scheme = Some(Scheme::INT8_DYNAMIC),
        |config| config.search.max_trials = 1,
        |config| config.search.smoothing = Smoothing::Auto,
    ];
    for (at, change) in rests.into_iter().enumerate() {
        assert!(!runs_the_model(&config(change)), "{at}");
    }
    // There is nothing to smooth where nothing becomes int8.
    let sixteen = config(|config| {
        (config.scheme, config.search.smoothing) = (Some(Scheme::FP16), Smoothing::On);
    });
    assert!(!smooths(&sixteen));
}

/// The plan that comes of running the original, and how many warnings there are.
fn planned(runtime: &Planted, change: fn(&mut Config)) -> Result<(ExplainedPlan, usize), Error> {
    planned_by(runtime, 0, change)
}

/// The same where so many samples are set apart.
fn planned_by(
    runtime: &Planted,
    calibrating: usize,
    change: fn(&mut Config),
) -> Result<(ExplainedPlan, usize), Error> {
    let bed = Bed::of(&[Layer::Even; 3], 20.0);
    let mut config = planted::named(&bed);
    change(&mut config);
    let mut ground = bed.planted(runtime, samples(2), &config)?;
    ground.calibrating = samples(calibrating);
    let (mut cache, mut warnings) = (Cache::open(None), Vec::new());
    let budget = Budget::new(Instant::now(), None, Stop::default());
    let mut tensors = SeenTensors::default();
    let mut notes = Notes {
        cache: &mut cache,
        warnings: &mut warnings,
        tensors: &mut tensors,
        calibration: None,
        budget: &budget,
    };
    let progress = &mut |_| {};
    let plan = informed(&bed.original, &bed.prepared, &mut ground, &config, &mut notes, progress)?;
    Ok((plan, warnings.len()))
}

#[test]
fn a_plan_for_a_search_is_that_of_the_rules() {
    let runtime = Planted::noisy(0.9);
    let (plan, warnings) = planned(&runtime, |_| {}).unwrap();
    assert!(plan.changed() > 0 && warnings == 0);
    assert_eq!(runtime.loaded(TRIAL), 0, "nothing is tried yet");
}

#[test]
fn activations_that_cannot_be_seen_are_a_warning() {
    let smoothing = |config: &mut Config| {
        (config.scheme, config.search.smoothing) = (Some(Scheme::INT8_DYNAMIC), Smoothing::On);
    };
    let blind = Planted::noisy(0.0)
        .refusing(|model, _| (model == "activations.onnx").then(planted::refusal));
    let (plan, warnings) = planned(&blind, smoothing).unwrap();
    assert_eq!(warnings, 1);
    assert!(plan.layers.iter().all(|line| line.smoothing.is_empty()));
}

#[test]
fn refinements_come_from_the_samples_that_calibrate() {
    let ran = |calibrating: usize| {
        let runtime = Planted::noisy(0.0);
        let smoothing = |config: &mut Config| {
            (config.scheme, config.search.smoothing) = (Some(Scheme::INT8_DYNAMIC), Smoothing::On);
        };
        planned_by(&runtime, calibrating, smoothing).unwrap();
        runtime.ran("activations.onnx")
    };
    assert_eq!([0, 3].map(ran), [2, 3]);
}

#[test]
fn sixteen_bits_are_mixed_until_they_are_close_enough() {
    let close = Planted::noisy(0.01);
    let (whole, _) = planned(&close, |config| config.scheme = Some(Scheme::BF16)).unwrap();
    assert_eq!(whole.layers.iter().filter(|line| line.scheme == Scheme::BF16).count(), 5);
    // The more is tried, the closer it comes.
    let noisy = Planted::new(|run| {
        let error = if run.model == TRIAL { 0.5 / (1 + run.before) as f32 } else { 0.0 };
        Ok(run.times(1.0 + error))
    });
    let (mixed, _) = planned(&noisy, |config| config.scheme = Some(Scheme::BF16)).unwrap();
    assert!(mixed.layers.iter().filter(|line| line.scheme == Scheme::BF16).count() < 5);
}

#[test]
fn what_is_wrong_here_ends_the_planning() {
    let full = Planted::noisy(0.5)
        .refusing(|model, before| (model == TRIAL && before > 0).then(planted::no_memory));
    let error = planned(&full, |config| config.scheme = Some(Scheme::BF16)).unwrap_err();
    assert!(error.is_of_machine(), "{error}");
}

#[test]
fn an_interface_of_sixteen_bits_is_run_as_it_is_called() {
    // Candidates get float16; the original never does.
    let runtime = Planted::new(|run| {
        let narrow = run.inputs["x"].dtype() == DataType::FLOAT16;
        assert_eq!(narrow, run.model == TRIAL, "{}", run.model);
        Ok(run.times(1.0))
    });
    let (plan, _) = planned(&runtime, |config| {
        (config.scheme, config.io) = (Some(Scheme::FP16), Interface::Fp16);
    })
    .unwrap();
    assert_eq!(plan.io, Interface::Fp16);
    assert!(runtime.ran(TRIAL) > 0);
}

#[test]
fn the_layer_that_costs_most_is_ranked_first() {
    let bed = Bed::of(&[Layer::Even, Layer::Outliers, Layer::Even], 20.0);
    let config = Config { scheme: Some(Scheme::INT8_WEIGHTS), ..bed.config.clone() };
    let ranked = rank(&bed.path(), &config, &mut |_| {}).unwrap();
    assert_eq!((ranked.layers.len(), ranked.plan.layers.len()), (3, 3));
    assert_eq!(ranked.layers[0].layers, ["product1"]);
    assert!(ranked.layers[0].gained_db > ranked.layers[1].gained_db);
    assert_eq!(ranked.samples.kind, report::SampleKind::Synthetic);
    let again = rank(&bed.path(), &config, &mut |_| {}).unwrap();
    assert_eq!(again.layers, ranked.layers);
}

#[test]
fn a_ranking_without_time_is_no_ranking() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let mut config = Config { scheme: Some(Scheme::INT8_WEIGHTS), ..bed.config.clone() };
    config.search.time_budget = Some(0.0);
    let error = rank(&bed.path(), &config, &mut |_| {}).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Candidate(_)), "{error}");
}

#[test]
fn a_plan_that_changes_nothing_ranks_nothing() {
    let bed = Bed::of(&[Layer::Even; 2], 20.0);
    let config = Config { scheme: Some(Scheme::KEEP), ..bed.config.clone() };
    assert!(rank(&bed.path(), &config, &mut |_| {}).unwrap().layers.is_empty());
}

#[test]
fn what_no_machine_can_run_is_not_tried() {
    let path = xtask::testdata::fixture("attacks/fold_constant_of_shape.onnx");
    let original = onnx::load(&path).unwrap();
    let config = Config::default();
    let prepared = transform::prepared(&original, &config).unwrap();
    let subject = Arc::new(Subject::as_it_is(&path));
    let error = survey(&subject, &original, &prepared, &config, &mut |_| {}).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Unreasonable(_)), "{error}");
}
